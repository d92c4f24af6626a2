"""What all runs on one text share, opened by a study's parameters: the model, the text, the device,
and what of the model is trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

from lib.balance import trainable
from lib.balance.study import Study
from lib.model import corpus, load, texts
from lib.model.corpus import Document

MOST = 10_000  # documents of a text that is not the corpus, trained on


def _source(study: Study) -> tuple[str, dict[str, Any]]:
    """(what transformers opens, with which options)."""
    path = Path(study.model).expanduser()
    own = study.remote_code == study.model
    options: dict[str, Any] = dict(revision=study.revision, trust_remote_code=own)
    return str(path) if path.exists() else study.model, options


def decided(study: Study) -> tuple[Study, str]:
    """(the study with `trained` decided, by what, in words): of "auto" all where it fits into
    memory, by the model's configuration alone, else the routers.  The embedded model always fits.
    """
    if study.trained != "auto":
        return study, "as asked for"
    if study.model == "embedded":
        return replace(study, trained="all"), "as the embedded model fits"
    need = memory(study)
    return replace(study, trained=need.decided), f"as {need}"


def memory(study: Study) -> trainable.Memory:
    """What a run of a study needs, by the configuration of its model alone."""
    device = load.device(study.device)
    if study.model == "embedded":
        return trainable.memory(load.config(), torch.float32, study.batch, device)
    source, options = _source(study)
    settings = load.read_config(study.model, source, options)
    kind = load.dtype_of(study.model, study.dtype, settings, device)
    own = options["trust_remote_code"]
    return trainable.memory(settings, kind, study.batch, device, code=own)


@dataclass(frozen=True)
class Setup:
    """What all runs on one text share: the tokens trained on, the documents held out, where they
    run, and the settings by which results are known.
    """

    stream: np.ndarray
    documents: list[Document]
    device: torch.device
    settings: dict

    def precision(self, model: torch.nn.Module) -> str:
        """bfloat16 products on a GPU, and where the weights are."""
        half = next(model.parameters()).dtype == torch.bfloat16
        return "bf16" if half or self.device.type == "cuda" else "float32"


def opened(study: Study, device: torch.device) -> tuple[transformers.PreTrainedModel, Tokenizer]:
    """(model, tokenizer) that fine-tuning starts from: in float32 where all of it is trained, else
    in the study's `dtype`.
    """
    if study.model == "embedded":
        return load.open("without", device=device)
    dtype = "float32" if study.trained == "all" else study.dtype
    options: dict[str, Any] = dict(revision=study.revision, code=study.remote_code)
    return load.open(study.model, device=device, dtype=dtype, **options)


def tokenizer(study: Study) -> Tokenizer:
    """The tokenizer of a study's model, without the model."""
    if study.model == "embedded":
        return load.tokenizer()
    source, options = _source(study)
    return load.one_line(study.model, lambda: load.own_tokenizer(Path(source), source, options))


def prepare(study: Study, stride: int, device: torch.device) -> Setup:
    """Read the text that is trained on, of this book's every `stride`-th training document, of
    another its training part, and the documents held out from it.
    """
    stream = corpus.stream(corpus.encode(_training(study, stride), tokenizer(study)))
    return Setup(stream, held_out(study), device, study.settings(stride))


def held_out(study: Study) -> list[Document]:
    """The documents that a study is judged on, encoded."""
    found = texts.chosen(study.text, study.documents_per_domain, part="held-out", **_how(study))
    return corpus.encode(found, tokenizer(study), study.tokens_per_document)


def _training(study: Study, stride: int) -> list[Document]:
    """The documents that are trained on."""
    if study.text != texts.HELD_OUT:
        return texts.chosen(study.text, MOST, part="training", **_how(study))
    rows = corpus.manifest().query("split == 'train'").iloc[::stride]
    return corpus.read(rows, source=study.corpus_source, allow_partial=study.allow_partial)


def _how(study: Study) -> dict[str, Any]:
    """How the text of a study is read."""
    own = dict(field=study.text_field, split=study.text_split)
    return own | dict(source=study.corpus_source, allow_partial=study.allow_partial)
