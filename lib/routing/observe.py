"""Run a model over documents and keep its routes; what that costs; and counts that serving engines
recorded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lib.routing import adapter
from lib.routing.trace import Trace


@torch.no_grad()
def trace(
    model: torch.nn.Module, documents: Sequence, *, batch_tokens: int = 8192, name: str = "model"
) -> Trace:
    """The routes of `documents` (with token_ids, domain, cluster), each read from its beginning in
    one forward pass.

    Batches are padded to their longest document and masked, so padding is never counted.  Refused:
    no document, and one longer than the model's context.
    """
    if not documents:
        raise ValueError("observe.trace: 0 documents: must be at least one")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for doc in documents:
        if context is not None and len(doc.token_ids) > context:
            raise ValueError(
                f"observe.trace: a document of {len(doc.token_ids)} tokens: must be at most {context}, the context"
            )
    device = next(model.parameters()).device
    order = sorted(range(len(documents)), key=lambda i: len(documents[i].token_ids))
    longest = len(documents[order[-1]].token_ids)
    size = max(1, batch_tokens // longest)
    owner: list[int] = []
    with adapter.record(model, indices=True) as rec:
        for start in tqdm(
            range(0, len(order), size), desc=f"routing {name}", mininterval=5.0, leave=False
        ):
            batch = order[start : start + size]
            owner += batch
            _forward(model, [documents[i].token_ids for i in batch], device)
        index = np.stack([rec.index(layer).cpu().numpy() for layer in range(rec.layers)])
    return _assemble(index, [documents[i] for i in owner], rec.experts, name)


def _forward(model: torch.nn.Module, rows: list[Sequence[int]], device: torch.device) -> None:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    length = torch.tensor([len(row) for row in rows], device=device)
    mask = (torch.arange(longest, device=device) < length[:, None]).long()
    model(input_ids=ids, attention_mask=mask, use_cache=False)


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
    model: torch.nn.Module, documents: Sequence, *, batch_tokens: int = 4096
) -> np.ndarray:
    """[layers] mean entropy of the router's softmax over its logits, over ln E: 1 is undecided, 0
    certain.
    """
    device, total, tokens = next(model.parameters()).device, 0.0, 0
    size = max(1, batch_tokens // max(len(doc.token_ids) for doc in documents))
    with torch.no_grad(), adapter.record(model, scores=True) as rec:
        for start in range(0, len(documents), size):
            _forward(model, [doc.token_ids for doc in documents[start : start + size]], device)
            parts = [torch.cat(part).float().log_softmax(-1) for part in rec.scores]
            total = total + torch.stack([-(part.exp() * part).sum() for part in parts]).double()
            tokens += len(parts[0])
            rec.clear()
    return (total / tokens / np.log(rec.experts)).cpu().numpy()


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
    ids = torch.from_numpy(
        rng.integers(0, model.config.get_text_config().vocab_size, (tokens // width, width))
    ).to(device)
    ways = {"plain": {}, "record": {}}
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


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def recorded_counts(path: Path) -> pd.DataFrame:
    """Counts that others recorded, one row per model, domain, layer and expert: columns model,
    experts, top_k, domain, layer, tokens, expert, count.

    Read are: a CSV of these columns; a dump of SGLang's expert distribution recorder (.pt with
    "logical_count" [steps, layers, experts], or "records" with "topk_ids_of_layer" [layers, tokens,
    k] or "logical_count"); and an array [..., layers, experts] as vLLM's expert load, in .pt, .npy
    or .json.  Leading axes (steps, ranks) are summed; layers never are.  Refused: anything else,
    and counts below 0.
    """
    try:
        if path.suffix == ".csv":
            return _counted(pd.read_csv(path)[COLUMNS], path)
        if path.suffix == ".pt":
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)
        load, k = _dump(content)
    except (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"observe.recorded_counts: {path}: cannot be read as counts: {str(error).splitlines()[0]}"
        ) from None
    layer, expert = np.indices(load.shape)
    tokens = load.sum(1) // k if k else np.zeros(len(load), int)
    frame = dict(
        model=path.stem,
        experts=load.shape[1],
        top_k=k,
        domain="all",
        layer=layer.ravel(),
        tokens=np.repeat(tokens, load.shape[1]),
        expert=expert.ravel(),
        count=load.ravel(),
    )
    return _counted(pd.DataFrame(frame), path)


COLUMNS = ["model", "experts", "top_k", "domain", "layer", "tokens", "expert", "count"]


def _counted(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if (frame["count"] < 0).any() or frame.empty:
        raise ValueError(
            f"observe.recorded_counts: {path}: counts must be ≥ 0, and there must be some"
        )
    return frame


def _dump(content: object) -> tuple[np.ndarray, int]:
    """[layers, experts] of a recorder's dump, and k where it tells it (else 0)."""
    k = 0
    if isinstance(content, dict) and "records" in content:
        records = content["records"]
        if "topk_ids_of_layer" in records[0]:
            chosen = [np.asarray(record["topk_ids_of_layer"]) for record in records]
            k, experts = chosen[0].shape[2], 1 + max(int(part.max()) for part in chosen)
            steps = [
                [
                    np.bincount(row[row >= 0], minlength=experts)
                    for row in part.reshape(len(part), -1)
                ]
                for part in chosen
            ]
        else:
            steps = [np.asarray(record["logical_count"]) for record in records]
        load = np.asarray(steps)
    else:
        load = np.asarray(content["logical_count"] if isinstance(content, dict) else content)
    if load.ndim < 2:
        raise ValueError(f"shape {load.shape}: must end in [layers, experts]")
    return load.reshape(-1, *load.shape[-2:]).sum(0).astype(np.int64), k
