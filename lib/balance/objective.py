"""What one training step minimises, and its gradient: language loss plus balance loss of the
*global* batch.

The global batch may come in parts, one after the other (accumulation) or on several processes:
losses are given the statistics of all of it, so that neither changes the objective.  Whatever the
model's family, they see it through `lib.routing.adapter`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from lib.balance import language, losses
from lib.balance.losses import Loss
from lib.routing import adapter


def language_loss(model: torch.nn.Module, batch: Tensor) -> Tensor:
    """Mean next-token cross entropy in nats of a batch [sequences, tokens + 1]; where
    `language.split` has found that it can be, a part of its logits at a time.
    """
    if language.is_split(model):
        return language.loss(model, batch)
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return cross_entropy(losses.wide(logits.flatten(0, 1)), batch[:, 1:].flatten())


def selection_bias(model: torch.nn.Module) -> Tensor:
    """The loss-free bias [layers, experts] of a model, a buffer of it (made as zeros where there is
    none yet).
    """
    bias = getattr(model, "selection_bias", None)
    if bias is None:
        layers, first = adapter.layers(model), next(model.parameters())
        kind = torch.promote_types(first.dtype, torch.float32)
        bias = torch.zeros(len(layers), layers[0].num_experts, dtype=kind, device=first.device)
        model.register_buffer("selection_bias", bias, persistent=False)
    return bias


def biased(model: torch.nn.Module) -> AbstractContextManager[None]:
    """Inside it tokens choose by score + bias and are weighted by score alone (arXiv 2408.15664);
    without bias as ever.
    """
    if not hasattr(model, "selection_bias"):
        return nullcontext()

    def choose(scores: Tensor, call: adapter.Call) -> tuple[Tensor, Tensor]:
        ranked = scores if call.rule.on == "logit" else call.rule.choice(call.logits)
        shifted = ranked + selection_bias(model)[call.layer].to(ranked.device)
        index = shifted.topk(call.index.shape[1], dim=-1).indices
        return index, call.rule.weights(call.logits, index)

    return adapter.assign(model, choose, trusted=True)


@torch.no_grad()
def update_bias(bias: Tensor, load: Tensor, rate: float | Tensor) -> None:
    """b ← b + u sign(mean load − load) per layer, recentred, from the load [layers, experts] of a
    global batch.
    """
    bias += rate * torch.sign(load.to(bias.dtype).mean(1, keepdim=True) - load)
    bias -= bias.mean(1, keepdim=True)


def _logits(model: torch.nn.Module, rec: adapter.Record, raw: bool) -> list[Tensor]:
    """Per layer logits [tokens, experts] whose softmax is the router's probability (its scores over
    their sum), all on the record's device; `raw`: its own logits, whatever its scores are.
    """
    found = []
    for layer, scores in zip(adapter.layers(model), rec.scores, strict=True):
        logits, rule = scores[-1].to(rec.device), layer.rule
        if raw or rule is None or rule.score == "softmax":
            found.append(logits[:, : rec.experts])
        else:
            native = losses.wide(rule.scores(logits))[:, : rec.experts]
            found.append((native / native.sum(-1, keepdim=True)).clamp(min=1e-30).log())
    return found


def probabilities(model: torch.nn.Module, rec: adapter.Record) -> Tensor:
    """[layers, experts] mean router probability over the tokens of the last pass in `rec`."""
    return torch.stack([losses.probability(part) for part in _logits(model, rec, raw=False)])


def balance_loss(
    model: torch.nn.Module,
    rec: adapter.Record,
    loss: Loss,
    load: Tensor | None = None,
    mean: Tensor | None = None,
) -> Tensor:
    """Mean over layers of `loss` on the logits that `rec` holds; 0 where it has no function.

    load, mean [layers, experts]: of the global batch; None: what `rec` holds is the global batch.
    """
    if loss.function is None:
        return torch.zeros((), device=rec.device)
    logits = _logits(model, rec, loss.raw)
    if loss.pooled:
        return loss.function(tuple(logits), rec.k)
    counts = rec.load if load is None else load
    known = [None] * len(logits) if mean is None else mean
    parts = zip(logits, counts, known, strict=True)
    return torch.stack([loss.function(*part) for part in parts]).mean()


@torch.no_grad()
def statistics(
    model: torch.nn.Module,
    rec: adapter.Record,
    parts: Sequence[Tensor],
    forward: AbstractContextManager,
) -> tuple[Tensor, Tensor]:
    """(load, mean probability), both [layers, experts], of the global batch of which `parts` are
    this process's share.

    A pass of its own, before the first gradient; random generators are put back, so that dropout
    falls alike again.
    """
    loads, means = [], []
    where = next(model.parameters()).device
    with torch.random.fork_rng([where] if where.type == "cuda" else []):
        for part in parts:
            rec.clear()
            with forward:
                model(input_ids=part[:, :-1], use_cache=False)
            loads.append(rec.load)
            means.append(probabilities(model, rec))
    mean = sum(means[1:], means[0]) / len(parts) / place()[1]
    return spread([sum(loads[1:], loads[0])])[0], spread([mean])[0]


def place() -> tuple[int, int]:
    """(rank, processes) of this process among those that train one model together."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def spread(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Each tensor's sum over all processes, in place; one exchange per number type."""
    if place()[1] > 1:
        for kind in sorted({tensor.dtype for tensor in tensors}, key=str):
            same = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            dist.all_reduce(flat)
            for tensor, part in zip(
                same, flat.split([tensor.numel() for tensor in same]), strict=True
            ):
                tensor.copy_(part.view_as(tensor))
    return tensors


def gradients(
    model: torch.nn.Module,
    rec: adapter.Record,
    batch: Tensor,
    loss: Loss,
    coefficient: float,
    *,
    micro_sequences: int = 0,
    forward: AbstractContextManager | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the gradient of one global batch to the model; returns (nats, balance loss, load [layers,
    experts]) of it.

    Each process takes its share of `batch`, in parts of `micro_sequences` (0: whole); neither
    changes objective or gradient, but for a loss that is pooled, which knows no global batch.
    """
    forward = forward or nullcontext()
    rank, world = place()
    mine = batch.chunk(world)[rank]
    parts = mine.split(micro_sequences or len(mine))
    known: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
    if len(parts) * world > 1 and loss.function is not None and loss.whole_batch:
        known = statistics(model, rec, parts, forward)
    nats, balance = torch.zeros((), device=rec.device), torch.zeros((), device=rec.device)
    load = torch.zeros(rec.layers, rec.experts, dtype=torch.int64, device=rec.device)
    for part in parts:
        rec.clear()
        with forward:
            language = language_loss(model, part)
            term = balance_loss(model, rec, loss, *known)
        share = len(part) / len(batch)
        ((language + coefficient * term) * share).backward()
        nats = nats + language.detach() * share
        balance, load = balance + term.detach() * share, load + rec.load
    if world > 1:
        nats, balance, load, *_ = spread([nats, balance, load, *_own_gradients(model)])
    return nats, balance, load


def _own_gradients(model: torch.nn.Module) -> list[Tensor]:
    """The gradients of all that is trained, in the same order on every process; zeros where a
    process has none.
    """
    found = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(parameter.grad)
    return found


def replayed(
    step: Callable[[Tensor], tuple[Tensor, ...]], model: torch.nn.Module, batch: Tensor
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """`step` as one CUDA graph, which spares the launch of each of its kernels; where that cannot
    be, `step` itself.

    step(batch) clears the model's gradients, leaves new ones and returns tensors, which its next
    replay overwrites.  It cannot be on a CPU, on several processes or devices, and in a model that
    waits for the device, as a loop over the experts does.
    """
    devices = {parameter.device for parameter in model.parameters()}
    if not batch.is_cuda or place()[1] > 1 or len(devices) > 1:
        return step
    still, graph, side = batch.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.random.fork_rng([batch.device]), torch.cuda.stream(side):
        for _ in range(3):
            step(still)
    torch.cuda.current_stream().wait_stream(side)
    try:
        with torch.cuda.graph(graph, stream=side):
            result = step(still)
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        tqdm.write(f"objective.replayed: {type(model).__name__} cannot be captured: {why}")
        return step

    def replay(new: Tensor) -> tuple[Tensor, ...]:
        still.copy_(new)
        graph.replay()
        return result

    return replay
