"""Run a model over documents and keep its routes; how decided its router is; what that costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NoReturn

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lib import stats
from lib.routing import adapter, declared, scoring
from lib.routing.trace import Trace

FEW = 40  # documents that tell how decided a router is


@torch.no_grad()
def trace(
    model: torch.nn.Module, documents: Sequence, *, batch_tokens: int = 8192, name: str = "model"
) -> Trace:
    """The routes of `documents` (with token_ids, domain, cluster), each read from its beginning in
    one forward pass.

    Batches are padded to their longest document and masked, so padding is never counted.  Refused:
    no document, one longer than the model's context or with a token beyond its vocabulary, and one
    that reaches some layer's experts, or the model's end, as no finite numbers (damaged weights, a
    number type too narrow for them).
    """
    if not documents:
        raise ValueError("observe.trace: 0 documents: must be at least one")
    order = sorted(range(len(documents)), key=lambda i: len(documents[i].token_ids))
    longest = len(documents[order[-1]].token_ids)
    text = declared.configuration(model).get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and longest > context:
        rule = f"must be at most {context}, the context"
        raise ValueError(f"observe.trace: a document of {longest} tokens: {rule}")
    _within(documents, text.vocab_size)
    device = next(model.parameters()).device
    size, reach = max(1, batch_tokens // longest), scoring.reach(model)
    owner: list[int] = []
    broken: list[int] = []
    with scoring.headless(model, 0, None) as states, adapter.record(model, indices=True) as rec:
        starts = range(0, len(order), size)
        for start in tqdm(starts, desc=f"routing {name}", mininterval=5.0, leave=False):
            batch = order[start : start + size]
            owner += batch
            rows = [documents[i].token_ids for i in batch]
            sound = _forward(model, rows, device, reach, states)
            broken += [i for i, whole in zip(batch, sound, strict=True) if not whole]
        if (place := rec.first_broken()) is not None:
            _not_finite([documents[i] for i in owner], *place)
        if broken:
            _refuse(_name(documents[broken[0]], broken[0]), "its logits")
        index = np.stack([rec.index(layer).cpu().numpy() for layer in range(rec.layers)])
    return _assemble(index, [documents[i] for i in owner], rec.experts, name)


def _within(documents: Sequence, vocabulary: int) -> None:
    for number, doc in enumerate(documents):
        if doc.token_ids and max(doc.token_ids) >= vocabulary:
            rule = f"must be below {vocabulary}, the model's vocabulary (is the tokenizer its own?)"
            named = f"{_name(doc, number)}: token {max(doc.token_ids)}"
            raise ValueError(f"observe.trace: {named}: {rule}")


def _not_finite(documents: Sequence, layer: int, token: int) -> NoReturn:
    ends = np.cumsum([len(doc.token_ids) for doc in documents])
    number = int(np.searchsorted(ends, token, side="right"))
    where = f"{_name(documents[number], number)}: MoE layer {layer + 1}"
    _refuse(where, "what its experts and router get")


def _refuse(where: str, what: str) -> NoReturn:
    rule = "must be finite numbers (damaged weights, or dtype too narrow?)"
    raise ValueError(f"observe.trace: {where}: {what}: {rule}")


def _name(doc: object, number: int) -> str:
    return f"document {getattr(doc, 'name', number)}"


def _forward(
    model: torch.nn.Module,
    rows: list[Sequence[int]],
    device: torch.device,
    reach: float,
    states: list,
) -> list[bool]:
    """Of each row whether the logits of all its tokens are finite numbers.  They are computed only
    of rows in which a state may lead to others.  reach: of `scoring`; states: of its `headless`.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    length = torch.tensor([len(row) for row in rows], device=device)
    mask = torch.arange(longest, device=device) < length[:, None]
    logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
    kept = states.pop() if states else None
    sound = torch.zeros_like(mask) if kept is None else scoring.within(kept[0], reach).to(device)
    whole = (sound | ~mask).all(1).tolist()
    # a row at a time: of all at once it would take three times their memory
    for row in (row for row, known in enumerate(whole) if not known):
        own = slice(row, row + 1)
        of = logits[own] if kept is None else scoring.head(model, kept, own, ids[own])
        whole[row] = bool(of[0, : len(rows[row])].isfinite().all())
    return whole


def _assemble(index: np.ndarray, documents: list, experts: int, name: str) -> Trace:
    """The trace of documents in the order in which they were run."""
    lengths = [len(doc.token_ids) for doc in documents]
    domains = sorted({doc.domain for doc in documents})
    clusters = sorted({doc.cluster for doc in documents})
    domain = [domains.index(doc.domain) for doc in documents]
    return Trace(
        expert_index=index.astype(np.uint8 if experts <= 256 else np.uint16),
        document=np.repeat(np.arange(len(documents), dtype=np.int32), lengths),
        position=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        domain=np.repeat(np.array(domain, dtype=np.int16), lengths),
        token=np.concatenate([np.asarray(doc.token_ids, dtype=np.int32) for doc in documents]),
        cluster=np.array([clusters.index(doc.cluster) for doc in documents], dtype=np.int32),
        domains=np.array(domains),
        clusters=np.array(clusters),
        experts=experts,
        model=name,
    )


def entropies(
    model: torch.nn.Module, documents: Sequence, *, most: int = FEW, batch_tokens: int = 4096
) -> np.ndarray:
    """[layers] mean entropy of the router's softmax over its logits, over ln E: 1 is undecided, 0
    certain; NaN where the logits of some layer are not seen.

    Of at most `most` documents, spread evenly over those given.
    """
    layers = adapter.layers(model)
    if not all(layer.scored for layer in layers):
        return np.full(len(layers), np.nan)
    chosen = documents[:: -(-len(documents) // most)]
    device, tokens = next(model.parameters()).device, 0
    total = torch.zeros(len(layers), dtype=torch.float64, device=device)
    size = max(1, batch_tokens // max(len(doc.token_ids) for doc in chosen))
    headless = scoring.headless(model, 0, None)
    with torch.no_grad(), headless as states, adapter.record(model, scores=True) as rec:
        for start in range(0, len(chosen), size):
            rows = [doc.token_ids for doc in chosen[start : start + size]]
            _forward(model, rows, device, 0.0, states)
            parts = [torch.cat(part).float().log_softmax(-1) for part in rec.scores]
            total += torch.stack([-(part.exp() * part).sum().to(device) for part in parts]).double()
            tokens += len(parts[0])
            rec.clear()
    return (total / tokens / np.log(rec.experts)).cpu().numpy()


def undecided(
    opened: Mapping[str, tuple[torch.nn.Module, object]], documents: Mapping[str, Sequence]
) -> pd.DataFrame:
    """`entropies` of models, each with its tokenizer, by their names (arm), on documents that each
    of them encoded: arm, layer (from 1), router_entropy.
    """
    found = {arm: entropies(net, documents[arm]) for arm, (net, _) in opened.items()}
    tables = [
        pd.DataFrame(dict(arm=arm, layer=np.arange(1, len(own) + 1), router_entropy=own))
        for arm, own in found.items()
    ]
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def cost(model: torch.nn.Module, tokens: int, repeats: int, seed: int = 0) -> pd.DataFrame:
    """Seconds of one forward pass of `tokens` random tokens (rows of at most 512): columns repeat,
    way, seconds.

    way: plain; record (this module's counting); router_logits (transformers' own output, where
    there is one).  Each is timed in every repeat, in random order, after two passes of each that
    are not counted.
    """
    device, rng = next(model.parameters()).device, np.random.default_rng(seed)
    width = min(512, tokens)
    vocabulary = declared.configuration(model).get_text_config().vocab_size
    ids = torch.from_numpy(rng.integers(0, vocabulary, (tokens // width, width))).to(device)
    ways: dict[str, dict[str, bool]] = {"plain": {}, "record": {}}
    if hasattr(model.config, "output_router_logits"):  # half of the families have none
        ways["router_logits"] = {"output_router_logits": True}
    rows = []
    for repeat in range(-2, repeats):
        for way in rng.permutation(list(ways)):
            with adapter.record(model) if way == "record" else nullcontext():
                start = _now(device)
                model(input_ids=ids, use_cache=False, **ways[way])
                rows.append(dict(repeat=repeat, way=str(way), seconds=_now(device) - start))
    return pd.DataFrame(rows).query("repeat >= 0").reset_index(drop=True)


def cost_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Of `cost`, a row per way: cost, cost_low, cost_high: time over that of a plain pass, median
    of the pairs with its 95 % interval (none of plain itself); milliseconds: median.
    """
    wide = np.log(table.pivot(index="repeat", columns="way", values="seconds"))
    rows = []
    for way in wide:
        ratio, low, high = wide[way] - wide.plain, np.nan, np.nan
        if way != "plain":
            low, high = np.exp(stats.quantile_interval(ratio, 0.5))
        middle, own = np.exp(ratio.median()), 1e3 * np.exp(wide[way].median())
        rows.append(dict(way=way, cost=middle, cost_low=low, cost_high=high, milliseconds=own))
    return pd.DataFrame(rows)


def readable(ratios: pd.DataFrame) -> pd.DataFrame:
    """`cost_ratios` under the heads that readers are shown."""
    return ratios.rename(columns=lambda name: name.replace("cost", "times_plain"))


def recording(ratios: pd.DataFrame) -> pd.DataFrame:
    """The rows of `cost_ratios` of the ways that record something."""
    return ratios[ratios.way != "plain"]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
