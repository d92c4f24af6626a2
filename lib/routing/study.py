"""The study of other assignments: what is tried on which checkpoint, and a row per run and document
of what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lib import stats
from lib.routing import adapter, assignment, bind, table
from lib.routing.assignment import Text

FIT_TOKENS = 2048  # of a batch of training text on which bias and thresholds are fitted
# of the table of runs and documents, what differs within a run or tells which run it is
STORED = [
    *("name", "domain", "cluster", "tokens", "nats", "correct"),
    *("arm", "protocol", "setting", "family", "policy", "size", "layer"),
]


@dataclass(frozen=True)
class Subject:
    """A checkpoint and the text it is judged on: documents, their ids [documents, tokens], and what
    strategies learned from its training text.
    """

    model: torch.nn.Module
    documents: Sequence[Text]
    ids: Tensor
    fits: bind.Fits

    def groups(self, size: int | None) -> Tensor:
        """[documents × tokens] routing group of every token: of the prefix protocol, or for a
        `size` groups of as many consecutive tokens.
        """
        shape = self.ids.shape[0], self.ids.shape[1]
        made = (
            assignment.prefix_groups(*shape)
            if size is None
            else assignment.prefill_groups(*shape, size)
        )
        return torch.from_numpy(made).to(self.ids.device)


def subject(
    model: torch.nn.Module,
    held_out: Sequence[Text],
    training: Sequence[Text],
    *,
    documents: int,
    tokens: int,
    fit_steps: int,
) -> Subject:
    """A checkpoint with at most `documents` held-out documents of exactly `tokens` tokens, domains
    in turn, and what is fitted on training documents of that length.
    """
    device = next(model.parameters()).device
    whole, grid = assignment.grid(held_out, tokens)
    order = assignment.in_turn(whole, documents)
    learned = torch.from_numpy(assignment.grid(training, tokens)[1]).to(device)
    fits = bind.fit(model, learned, batch_tokens=FIT_TOKENS, steps=fit_steps)
    return Subject(model, [whole[i] for i in order], torch.from_numpy(grid[order]).to(device), fits)


@dataclass(frozen=True)
class Job:
    """One pass of a checkpoint (`arm`): a setting by a protocol, where it has one in groups of
    `size` consecutive tokens, or in one `layer` only.
    """

    arm: str
    protocol: str
    setting: Mapping
    policy: str
    size: int | None = None
    layer: int | None = None

    def about(self) -> dict[str, object]:
        """What a row of results says of it; what it has not is NaN."""
        return dict(
            arm=self.arm,
            protocol=self.protocol,
            setting=self.setting["name"],
            family=self.setting["family"],
            policy=self.policy,
            size=np.nan if self.size is None else self.size,
            layer=np.nan if self.layer is None else self.layer,
            causal=bind.causal(self.setting),
            gamma=self.setting.get("gamma", np.nan),
        )


@dataclass(frozen=True)
class Study:
    """What is tried on every checkpoint.

    settings: those of `bind.settings`, decoded by the prefix protocol under the first of `policies`
        of the weights; under the others too if their family is in `reweighed`.
    gamma: the capacity factor at which all else is tried: prefill in groups of `prefill_tokens`
        (what takes seconds a group left out), re-routing in groups of each of `group_sizes`, and
        with `ablation` in one layer at a time.
    seed: of the random choice.
    """

    settings: Sequence[Mapping]
    policies: Sequence[str] = (bind.POLICY,)
    group_sizes: Sequence[int] = ()
    prefill_tokens: int = 512
    ablation: bool = True
    seed: int = 0
    gamma: float = 1.25
    reweighed: tuple[str, ...] = ("drop", "reroute", "random")

    @property
    def single(self) -> list[Mapping]:
        """The settings without a capacity factor, and of the others those at `gamma`."""
        return [s for s in self.settings if s.get("gamma", self.gamma) == self.gamma]

    def jobs(self, layers: Mapping[str, int]) -> list[Job]:
        """Every pass over every checkpoint: `layers`, how many MoE layers each has."""
        found = []
        for arm in layers:
            plain = Job(arm, "prefix", {}, self.policies[0])
            found += [replace(plain, setting=setting) for setting in self.settings]
            found += [
                replace(plain, setting=setting, policy=policy)
                for setting in self.settings
                for policy in self.policies[1:]
                if setting["family"] in self.reweighed
            ]
            found += self._others(plain, layers[arm])
        return found

    def _others(self, plain: Job, layers: int) -> list[Job]:
        """What is tried beside the prefix protocol, and in one layer at a time."""
        fast = [s for s in self.single if not table.find(s["strategy"]).slow]
        native = [s for s in self.single if table.find(s["strategy"]).own]
        reroute = [s for s in self.single if s["family"] == "reroute"]
        found = [
            replace(plain, protocol="prefill", setting=setting, size=self.prefill_tokens)
            for setting in fast
        ]
        found += [
            replace(plain, protocol="size", setting=setting, size=size)
            for setting in native + reroute
            for size in self.group_sizes
        ]
        return found + [
            replace(plain, protocol="layer", setting=setting, layer=number)
            for setting in reroute
            for number in range(layers if self.ablation else 0)
        ]


def measured(study: Study, subjects: Mapping[str, Subject]) -> pd.DataFrame:
    """A row per run and document of every pass of `study` over the checkpoints, by name.

    Columns: run (its number) and what `Job.about` says; of the run p95 (busiest expert over nominal
    load, over groups and layers), gini (mean over them), churn, kept, dropped; of the document
    name, domain, cluster, scored tokens, their nats, and how many were predicted correctly.
    """
    jobs = study.jobs({arm: len(adapter.layers(own.model)) for arm, own in subjects.items()})
    shown = tqdm(jobs, desc="assigning", mininterval=5.0, leave=False)
    parts = [one(job, subjects[job.arm], study.seed) for job in shown]
    return pd.concat([part.assign(run=i) for i, part in enumerate(parts)], ignore_index=True)


def one(job: Job, subject: Subject, seed: int) -> pd.DataFrame:
    """One pass, a row per document.  Where groups are prompts and positions the second half of
    every document is scored, else all of it.
    """
    group, first = subject.groups(job.size), subject.ids.shape[1] // 2 if job.size is None else 0
    own = table.find(job.setting["strategy"]).own
    weighed = dict(job.setting) if own else dict(job.setting, policy=job.policy)
    strategy = bind.bound(weighed, group, subject.fits, seed)
    made = assignment.run(subject.model, subject.ids, strategy, group, first=first, layer=job.layer)
    texts = subject.documents
    return pd.DataFrame(
        dict(
            name=[text.name for text in texts],
            domain=[text.domain for text in texts],
            cluster=[text.cluster for text in texts],
            tokens=made["tokens"],
            nats=made["nats"],
            correct=made["correct"].astype(int),
            **job.about(),
            p95=np.quantile(made["max_over_nominal"], 0.95),
            gini=stats.gini(made["load"] + 1e-12).mean(),  # a layer may have dropped all of a group
            churn=made["churn"],
            kept=made["kept"],
            dropped=made["dropped"],
        )
    )


def size(subject: Subject) -> pd.DataFrame:
    """One row: how many documents a checkpoint is judged on, and of how many clusters."""
    clusters = {text.cluster for text in subject.documents}
    return pd.DataFrame([dict(documents=len(subject.documents), clusters=len(clusters))])


def stored(documents: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of `measured`, what is kept for good: quality, nats to four digits."""
    return documents[STORED].round({"nats": 4})


def prices(subjects: Mapping[str, Subject]) -> pd.DataFrame:
    """Per checkpoint and layer (from 1), the correlation over experts of the fitted bias with minus
    the prices of the optimal assignment at γ = 1 (columns arm, layer, price_correlation).
    """
    parts = []
    for arm, own in subjects.items():
        found = bind.price_correlation(own.fits, adapter.layers(own.model)[0].k)
        layers = range(1, len(found) + 1)
        parts.append(pd.DataFrame(dict(arm=arm, layer=layers, price_correlation=found)))
    return pd.concat(parts, ignore_index=True)
