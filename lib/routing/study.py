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
from lib.routing import adapter, assignment, bind, declared, memory, table, weighing
from lib.routing.assignment import Text
from lib.routing.layer import Layer

FIT_TOKENS = 2048  # of a batch of training text on which bias and thresholds are fitted
# of the table of runs and documents: what tells which document it is, which run, and what differs
OF_DOCUMENT = ["name", "domain", "cluster"]
OF_RUN = ["arm", "protocol", "setting", "family", "policy", "size", "layer"]
OF_BOTH = ["tokens", "nats", "correct"]
NUMBERED = ("size", "layer")  # of a run, whole numbers, or none


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
    in turn, and what is fitted on training documents of that length.  Refused: more tokens than
    the model's context.
    """
    context = declared.context(model)
    if context is not None and tokens > context:
        rule = f"must be at most {context}, the model's context"
        raise ValueError(f"study.subject: tokens_per_document = {tokens}: {rule}")
    device = declared.device_of(model)
    whole, grid = assignment.grid(held_out, tokens)
    order = assignment.in_turn(whole, documents)
    learned = torch.from_numpy(assignment.grid(training, tokens)[1]).to(device)
    with memory.lowering("fit_documents or tokens_per_document"):
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

    @property
    def authors(self) -> str:
        """The weights that the authors of its strategy define."""
        return table.find(self.setting["strategy"]).policy

    def about(self) -> dict[str, object]:
        """What a row of results says of it; what it has not is NaN."""
        return dict(
            arm=self.arm,
            protocol=self.protocol,
            setting=self.setting["name"],
            family=self.setting["family"],
            policy=self.policy,
            authors=self.policy == self.authors,
            size=np.nan if self.size is None else self.size,
            layer=np.nan if self.layer is None else self.layer,
            causal=bind.causal(self.setting),
            slow=table.find(self.setting["strategy"]).slow,
            gamma=self.setting.get("gamma", np.nan),
        )


@dataclass(frozen=True)
class Study:
    """What is tried on every checkpoint.

    settings: those of `bind.settings`, each with the weights of its authors, decoded by the prefix
        protocol; and there with each of `policies` beside.
    gamma: the capacity factor at which all else is tried: prefill in groups of `prefill_tokens`
        (what takes seconds a group left out), re-routing in groups of each of `group_sizes`, and
        with `ablation` in one layer at a time.
    seed: of the random choice.
    """

    settings: Sequence[Mapping]
    policies: Sequence[str] = weighing.POLICIES
    group_sizes: Sequence[int] = ()
    prefill_tokens: int = 512
    ablation: bool = True
    seed: int = 0
    gamma: float = 1.25

    def single(self, setting: Mapping) -> bool:
        """Whether a setting has no capacity factor, or that at which all else is tried."""
        return setting.get("gamma", self.gamma) == self.gamma

    def jobs(self, layers: Mapping[str, Sequence[Layer]]) -> list[Job]:
        """Every pass over every checkpoint, whose MoE layers are `layers`."""
        found = []
        for arm, own in layers.items():
            for setting in bind.suited(self.settings, own[0].k, own[0].num_experts):
                row = table.find(setting["strategy"])
                first = Job(arm, "prefix", setting, row.policy)
                others = [policy for policy in self.policies if policy != row.policy]
                found += [first] + [replace(first, policy=other) for other in others if not row.own]
            found += self._others([job for job in found if job.arm == arm], len(own))
        return found

    def _others(self, decoded: Sequence[Job], layers: int) -> list[Job]:
        """Of what is decoded, what is also tried by another protocol, and in one layer at a time,
        with its authors' weights.
        """
        plain = [job for job in decoded if job.policy == job.authors]
        own = [job for job in plain if self.single(job.setting)]
        reroute = [job for job in own if job.setting["family"] == "reroute"]
        native = [job for job in own if table.find(job.setting["strategy"]).own]
        found = [
            replace(job, protocol="prefill", size=self.prefill_tokens)
            for job in own
            if not table.find(job.setting["strategy"]).slow
        ]
        found += [
            replace(job, protocol="size", size=size)
            for job in native + reroute
            for size in self.group_sizes
        ]
        return found + [
            replace(job, protocol="layer", layer=number)
            for job in reroute
            for number in range(layers if self.ablation else 0)
        ]


def measured(study: Study, subjects: Mapping[str, Subject]) -> pd.DataFrame:
    """A row per run and document of every pass of `study` over the checkpoints, by name.

    Columns: run (its number) and what `Job.about` says, whether with the weights of its `authors`
    among it; of the run p95 (busiest expert over nominal load, over groups and layers), gini (mean
    over them), churn, kept, dropped; of the document name, domain, cluster, scored tokens, their
    nats, and how many were predicted correctly.
    """
    jobs = study.jobs({arm: adapter.layers(own.model) for arm, own in subjects.items()})
    shown = tqdm(jobs, desc="assigning", mininterval=5.0, leave=False)
    with memory.lowering("documents or tokens_per_document"):
        parts = [one(job, subjects[job.arm], study.seed) for job in shown]
    return pd.concat([part.assign(run=i) for i, part in enumerate(parts)], ignore_index=True)


def one(job: Job, subject: Subject, seed: int) -> pd.DataFrame:
    """One pass, a row per document.  Where groups are prompts and positions the second half of
    every document is scored, else all of it.
    """
    group, first = subject.groups(job.size), subject.ids.shape[1] // 2 if job.size is None else 0
    strategy = bind.bound(dict(job.setting, policy=job.policy), group, subject.fits, seed)
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


def size(subject: Subject) -> pd.Series:
    """Of what a checkpoint is judged on: how many documents, clusters, and experts a token and in
    all.
    """
    layer = adapter.layers(subject.model)[0]
    clusters = {text.cluster for text in subject.documents}
    return pd.Series(
        dict(
            documents=len(subject.documents),
            clusters=len(clusters),
            k=layer.k,
            experts=layer.num_experts,
        )
    )


def stored(documents: pd.DataFrame) -> list[dict]:
    """Of the rows of `measured`, what is kept for good, as objects without a row twice: for each
    checkpoint its documents (arm, and lists of name, domain, cluster); for each run what it was,
    and in the order of its checkpoint's documents lists of tokens, nats to four digits, correct.
    """
    found: list[dict] = []
    for arm, own in documents.groupby("arm", sort=False):
        first = own[own.run == own.run.iloc[0]]
        found.append({"arm": arm} | first[OF_DOCUMENT].to_dict("list"))
        for _, part in own.groupby("run", sort=False):
            head = part.iloc[0]
            about = {name: head[name] for name in OF_RUN if name not in NUMBERED}
            about |= {name: None if pd.isna(head[name]) else int(head[name]) for name in NUMBERED}
            found.append(about | part[OF_BOTH].round({"nats": 4}).to_dict("list"))
    return found


def read(rows: Sequence[dict]) -> pd.DataFrame:
    """The table of which `stored` made `rows`, with the numbers of its runs; "none" of a run is
    NaN.
    """
    names: dict[str, dict] = {}
    parts: list[pd.DataFrame] = []
    for row in rows:
        if "nats" in row:
            parts.append(pd.DataFrame(names[row["arm"]] | row | {"run": len(parts)}))
        else:
            names[row["arm"]] = row
    return pd.concat(parts, ignore_index=True).astype(dict.fromkeys(NUMBERED, float))


def leaks(plan: Study, subject: Subject, tokens: int = 128) -> pd.DataFrame:
    """What another second half changes in the first half of `tokens` tokens of a document, for one
    setting of every strategy (`assignment.leak`).
    """
    layer = adapter.layers(subject.model)[0]
    suited = bind.suited(plan.settings, layer.k, layer.num_experts)
    first: dict[str, Mapping] = {}
    for setting in filter(plan.single, suited):
        first.setdefault(setting["family"], setting)
    one, other = subject.ids[:2, :tokens]
    return assignment.leak(subject.model, one, other, [*first.values()], subject.fits)


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
