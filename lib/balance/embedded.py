"""What is recorded of the embedded checkpoints, and whether it holds here: the folder that
`pretrain.run` wrote, read back, and its evaluation repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
import transformers

from lib.balance import evaluate
from lib.model.corpus import Document

AGREE = 0.02  # nats per token by which a repeated evaluation may differ from the recorded one
BARS = {"5-gram": "bits_per_byte_5gram", "xz -9": "bits_per_byte_xz"}
EVALUATED = ["name", "domain", "cluster", "bytes", "tokens", "nats", "correct"]


def files(folder: Path) -> list[Path]:
    """The tables and facts of a folder, all but the models and their tokenizer."""
    patterns = ("bars.csv", "held_out_*.csv.xz", "provenance_*.json", "training_*.csv.xz")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _by_arm(folder: Path, start: str, ending: str) -> pd.DataFrame:
    """The tables of all arms, one below the other, with the arm."""
    paths = {
        path.name.removeprefix(start).removesuffix(ending): path
        for path in sorted(folder.glob(f"{start}*{ending}"))
    }
    return pd.concat([pd.read_csv(path).assign(arm=arm) for arm, path in paths.items()])


def curves(folder: Path) -> pd.DataFrame:
    """The histories of training of all arms, as `train.run` gives them."""
    return _by_arm(folder, "training_", ".csv.xz")


def ends(histories: pd.DataFrame) -> pd.Series:
    """Gini of the load of training batches at the end, mean over layers, by arm."""
    return histories.groupby("arm").gini.last()


def held_out(folder: Path) -> pd.DataFrame:
    """Evaluation per held-out document of all arms: columns of `evaluate.per_document`, and cut:
    tokens of each document that were evaluated, 0 for all.
    """
    return _by_arm(folder, "held_out_", ".csv.xz")


def domains(documents: pd.DataFrame) -> pd.DataFrame:
    """`evaluate.by_domain` of each arm: arm, domain, documents, clusters, tokens, bytes, then nats
    per token, bits per byte and next-token accuracy.
    """
    return documents.groupby("arm")[EVALUATED].apply(evaluate.by_domain).reset_index()


def bars(folder: Path, documents: pd.DataFrame) -> pd.DataFrame:
    """Bits per byte on all held-out text by domain: of the 5-gram model, of xz -9, and of each arm
    (columns bits_per_byte_<what>).
    """
    table = pd.read_csv(folder / "bars.csv", index_col="domain")[[*BARS]].rename(columns=BARS)
    whole = domains(documents[documents.cut == 0])
    reached = whole.pivot(index="domain", columns="arm", values="bits_per_byte")
    return table.join(reached.add_prefix("bits_per_byte_")).reset_index()


def checkpoints(
    histories: pd.DataFrame, documents: pd.DataFrame, table: pd.DataFrame
) -> pd.DataFrame:
    """A row per arm from its `curves`, `held_out` and the `bars`: bits_per_byte and accuracy, means
    over domains; worst_over_bar: bits per byte over those of the better bar, the worst of the
    domains; training_gini: Gini of the load of training batches at the end, mean over layers.
    """
    whole = domains(documents[documents.cut == 0])
    means = whole.groupby("arm")[["bits_per_byte", "accuracy"]].mean()
    least = table[[*BARS.values()]].min(axis=1)
    over = {arm: (table[f"bits_per_byte_{arm}"] / least).max() for arm in means.index}
    gini = ends(histories)
    return means.assign(worst_over_bar=pd.Series(over), training_gini=gini).reset_index()


def training(folder: Path, histories: pd.DataFrame) -> pd.Series:
    """What the training of a folder was: tokens seen and unique ones, in millions; million tokens a
    second (median); and the means over domains of both bars.
    """
    table = pd.read_csv(folder / "bars.csv")
    facts = dict(
        training_tokens_m=histories.tokens.max() / 1e6,
        unique_tokens_m=table.training_tokens.iloc[0] / 1e6,
        training_rate_m=histories.tokens_per_s.median() / 1e6,
    )
    return pd.Series(facts | {name: table[bar].mean() for bar, name in BARS.items()})


def chosen(folder: Path, model: transformers.PreTrainedModel) -> pd.Series:
    """What was chosen, not measured, of a folder's training: parameters_m, of one of its models, in
    millions; epochs, passes over the text; training_device, that of the first arm.
    """
    unique = pd.read_csv(folder / "bars.csv").training_tokens.iloc[0]
    first = next(iter(sorted(folder.glob("provenance_*.json"))))
    return pd.Series(
        dict(
            parameters_m=model.num_parameters() / 1e6,
            epochs=curves(folder).tokens.max() / unique,
            training_device=json.loads(first.read_text())["device"],
        )
    )


def evaluated(models: Mapping[str, torch.nn.Module], documents: Sequence[Document]) -> pd.DataFrame:
    """`evaluate.per_document` of each model, by its arm."""
    tables = [
        evaluate.per_document(model, documents, progress=arm).assign(arm=arm)
        for arm, model in models.items()
    ]
    return pd.concat(tables)


def agreement(here: pd.DataFrame, recorded: pd.DataFrame, tokens: int) -> pd.Series:
    """How a repeated evaluation of at most `tokens` tokens a document agrees with the recorded one
    of the same: documents_here; compared_documents, of all arms, that both hold with the same
    tokens; difference_here: nats per token between the two, as a size (0 where none is compared).
    """
    same = recorded[recorded.cut == tokens]
    both = here.merge(same, on=["arm", "name", "tokens"], suffixes=("_here", "_recorded"))
    nats = both.nats_here.sum() - both.nats_recorded.sum()
    return pd.Series(
        dict(
            documents_here=here.groupby("arm").size().max(),
            compared_documents=len(both),
            difference_here=abs(nats) / max(both.tokens.sum(), 1),
        )
    )


def agreed(found: pd.Series) -> bool:
    """Whether an `agreement` is one."""
    return bool(found.difference_here < AGREE)


def completions(
    model: torch.nn.Module, tokenizer, documents: Sequence[Document], *, prompt: int, tokens: int
) -> pd.DataFrame:
    """Of the first document of each domain: domain, document, its beginning of `prompt` tokens, the
    greedy continuation by `tokens` tokens, and the original.
    """
    first = {doc.domain: doc for doc in reversed(documents)}
    return pd.DataFrame(
        [evaluate.completion(model, tokenizer, doc, prompt, tokens) for doc in first.values()]
    )
