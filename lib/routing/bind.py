"""Strategies bound to a model: what each needs to know beforehand, and one call for every layer.

A setting is a dict: "strategy" (a name of `table.STRATEGIES`), its arguments, and perhaps "policy"
of the weights, without which those of its authors are taken.  `fit` learns from training text what
some need (a table by token, a bias and thresholds per layer); `bound` makes of a setting what
`lib.routing.adapter.assign` takes.  What differs from one strategy to another is read from their
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib.routing import (
    adapter,
    declared,
    fitting,
    ranking,
    scoring,
    slicing,
    strategies,
    table,
    weighing,
)
from lib.routing.adapter import Call
from lib.routing.strategies import Assignment

ABOUT = ("name", "family", "strategy", "policy")  # of a setting, what is no argument
# what a row may need that is not fitted: from a layer's call and the seed of the whole study
GIVEN: Mapping[str, Callable[[Call, int], Any]] = {
    "seed": lambda call, seed: (seed, call.layer),
    "token_ids": lambda call, seed: call.token,
}
BY_TOKEN = ("token_ids",)  # of these, what has a row per token, as the scores have


@dataclass(frozen=True)
class Fits:
    """Learned from training text: table [vocabulary, k], and per layer bias [experts], cut
    [experts] and the scores [tokens, experts] that they were learned from.

    A row of the table of strategies may need any of these by its name, and gets that of the layer.
    """

    table: Tensor | None = None
    bias: list[Tensor] = field(default_factory=list)
    cut: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)


def causal(setting: Mapping) -> bool:
    """Whether a setting never looks at later tokens of its group."""
    return table.find(setting["strategy"]).causal


def settings(
    names: Sequence[str],
    gammas: Sequence[float],
    bias_scales: Sequence[float],
    among: Sequence[int],
) -> list[dict]:
    """Settings of the named strategies, each once, with a "name": every value of the argument that
    its row sweeps, those of the row or else those given here.  An unknown name is refused with the
    nearest.
    """
    given = {"gamma": gammas, "bias_scale": bias_scales, "among": among}
    made = []
    for name in dict.fromkeys(names):
        row = table.find(name)
        about: dict[str, object] = dict(name=name, family=name, strategy=name)
        swept = row.values or given.get(row.sweep, ())
        made += [about | {"name": f"{name} {value:g}", row.sweep: value} for value in swept]
        made += [] if row.sweep else [about]
    return made


def suited(plan: Sequence[Mapping], k: int, experts: int) -> list[dict]:
    """The settings of `plan` as a router of that shape admits them: more candidates than k, so that
    there is a choice, up to the experts, and of settings that are then the same the first.
    """
    made: dict[str, dict] = {}
    for setting in plan:
        own = dict(setting)
        if "among" in own:
            own["among"] = min(max(own["among"], k + 1), experts)
            own["name"] = f"{own['family']} {own['among']}"
        made.setdefault(own["name"], own)
    return list(made.values())


@torch.no_grad()
def fit(
    model: torch.nn.Module, ids: Tensor, *, batch_tokens: int, steps: int, pass_tokens: int = 4096
) -> Fits:
    """Fit on the native states of training text ids [sequences, tokens]; batches of `batch_tokens`
    tokens, forward passes of at most `pass_tokens`, at least one sequence.  Refused: a model of
    which some layer's scoring rule is not known.
    """
    layers = adapter.layers(model)
    known: list[list[Tensor]] = [[] for _ in layers]
    with (
        scoring.headless(model),
        slicing.sliced(model),
        adapter.record(model, scores=True, indices=True) as rec,
    ):
        for part in ids.split(max(1, pass_tokens // ids.shape[1])):
            model(input_ids=part, use_cache=False)
            for layer, seen, index, own in zip(layers, rec.scores, rec.indices, known, strict=True):
                if layer.rule is None:
                    raise ValueError(f"bind.fit: {layer.name}: {layer.why}: must have a known rule")
                state = torch.cat(seen), torch.cat(index)
                own.append(ranking.ranked(layer.rule, *state, layer.num_experts))
            rec.clear()
    whole = [torch.cat(part) for part in known]
    batches = [list(part.split(batch_tokens)) for part in whole]
    k, config = layers[0].k, declared.configuration(model).get_text_config()
    frequency = np.bincount(ids.cpu().numpy().ravel(), minlength=config.vocab_size)
    bias = [fitting.fit_bias(part, k, steps=steps) for part in batches]
    cut = [fitting.fit_cut(part, k) for part in batches]
    return Fits(fitting.hash_table(frequency, layers[0].num_experts, k), bias, cut, whole)


def bound(
    setting: Mapping, group: Tensor, fits: Fits | None = None, seed: int = 0
) -> adapter.Strategy:
    """A setting as a strategy for `adapter.assign`, applied within groups: group [tokens], the
    number of each token's.

    Strategies start from what the router ranks, and weights are those of its whole rule.  Streams
    (round robin, least loaded) go through the groups in their order.  Refused: a strategy that
    needs what is fitted, without `fits`.
    """
    row = table.find(setting["strategy"])
    policy = setting.get("policy") or row.policy
    if row.own and policy == "native":
        return adapter.native
    fitted = [need for need in row.needs if need not in GIVEN]
    held = {name for name, value in vars(fits).items() if _is_there(value)} if fits else set()
    if missing := [need for need in fitted if need not in held]:
        given = f"fits without {' and '.join(missing)}" if fits else "fits = None"
        raise ValueError(
            f"bind.bound: {setting['strategy']}: {given}: must hold its {' and '.join(fitted)}"
        )
    arguments = dict(row.fixed) | {n: value for n, value in setting.items() if n not in ABOUT}

    def assign(scores: Tensor, call: Call) -> Assignment:
        rule, k = call.rule, call.index.shape[1]
        handed: dict[str, Any] = {
            need: _of_layer(getattr(fits, need), call.layer) for need in fitted
        }
        handed |= {need: GIVEN[need](call, seed) for need in row.needs if need in GIVEN}
        by_token = {need: handed.pop(need) for need in BY_TOKEN if need in handed}
        ready = partial(row.function, k=k, weigh=weighing.marks, **arguments, **handed)
        ranked = ranking.ranked(rule, call.logits, call.index, scores.shape[1])
        asked = ranking.logs(ranked, rule) if row.on_logs else ranked
        index, marked = in_groups(ready, group, **by_token)(asked)
        return index, weighing.by_rule(policy, rule, call.logits, ranked, index, marked, k)

    return assign


def _is_there(fitted: object) -> bool:
    """Whether something was fitted."""
    return len(fitted) > 0 if isinstance(fitted, list) else fitted is not None


def _of_layer(fitted: object, layer: int) -> object:
    """Of something fitted, what belongs to a layer; the whole where it is the same in all."""
    return fitted[layer] if isinstance(fitted, list) else fitted


def in_groups(
    strategy: Callable[..., Assignment], group: int | Tensor, **by_token: Tensor
) -> Callable[[Tensor], Assignment]:
    """`strategy` on groups of tokens of scores [tokens, experts]; groups of one size are solved at
    once.

    group: how many consecutive tokens form one (the last may be smaller), or [tokens] the number of
    each token's group, in any order.  by_token: keywords of the strategy with a row per token.
    Where groups need different numbers of slots, the missing ones name expert 0 with weight 0.
    """
    if isinstance(group, int) and group < 1:
        raise ValueError(f"in_groups: group = {group}: must be at least 1")

    def grouped(scores: Tensor) -> Assignment:
        rows = _rows(len(scores), group, scores.device)
        done = [
            strategy(scores[row], **{name: part[row] for name, part in by_token.items()})
            for row in rows
        ]
        shape = len(scores), max(index.shape[-1] for index, _ in done)
        index, weight = rows[0].new_zeros(shape), scores.new_zeros(shape)
        for row, (i, w) in zip(rows, done, strict=True):
            index[row, : i.shape[-1]], weight[row, : w.shape[-1]] = i, w
        return index, weight

    return grouped


def _rows(tokens: int, group: int | Tensor, device: torch.device) -> list[Tensor]:
    """The numbers of the tokens of each group, groups of one size in one array [groups, size]."""
    label = torch.arange(tokens, device=device) // group if isinstance(group, int) else group
    if label.shape != (tokens,):
        raise ValueError(
            f"in_groups: group {list(label.shape)}: must be [{tokens}], one number per token"
        )
    order = label.to(device).argsort(stable=True)
    size = torch.unique_consecutive(label.to(device)[order], return_counts=True)[1]
    return [
        order[size.repeat_interleave(size) == n].view(-1, n) for n in size.unique().tolist()
    ] or [order]


def price_correlation(fits: Fits, k: int, tokens: int = 1024) -> np.ndarray:
    """[layers] correlation over experts of the learned bias with minus the linear programme's
    prices at γ = 1 (in logs of the scores, of the first `tokens` tokens of the fitted text); NaN
    where one of them is the same for all experts.
    """
    found = []
    for scores, bias in zip(fits.scores, fits.bias, strict=True):
        worth = (scores[:tokens] - scores.min().clamp(max=0)).clamp_min(ranking.LEAST).log()
        price = -strategies.optimal_prices(worth, k, 1).cpu().double()
        both = np.stack([price, bias.cpu().double()])
        flat = (np.ptp(both, axis=1) == 0).any()
        found.append(np.nan if flat else np.corrcoef(both)[0, 1])
    return np.array(found)


def keep_bias(path: Path, model: torch.nn.Module, fits: Fits) -> None:
    """Write the fitted bias as safetensors: a tensor [experts] by the name of each layer's experts
    in the model.
    """
    names = [layer.name for layer in adapter.layers(model)]
    rows = [row.cpu().contiguous() for row in fits.bias]
    save_file(dict(zip(names, rows, strict=True)), path)


def kept_bias(path: Path, model: torch.nn.Module) -> Fits:
    """What `keep_bias` wrote, for `bound` with the same model; refused: a file that lacks one of
    its layers, or holds a bias of another number of experts.
    """
    held, bias = load_file(path), []
    for layer in adapter.layers(model):
        shape = list(held[layer.name].shape) if layer.name in held else None
        if shape != [layer.num_experts]:
            raise ValueError(
                f"bind.kept_bias: {path.name}: {layer.name}: {shape or 'is missing'}: "
                f"must be [{layer.num_experts}], one number per expert"
            )
        bias.append(held[layer.name].to(declared.device_of(model)))
    return Fits(bias=bias)
