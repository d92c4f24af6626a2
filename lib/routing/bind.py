"""Strategies bound to a model: what each needs to know beforehand, and one call for every layer.

A setting is a dict: "strategy" (a name of `strategies.STRATEGIES`), its arguments, "policy" of the
weights.  `fit` learns from training text what some need (a table by token, a bias and thresholds
per layer); `bound` makes of a setting what `lib.routing.adapter.assign` takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lib.routing import adapter, capacity, strategies
from lib.routing.adapter import Call

CAUSAL = ("native", "random", "round_robin", "hashed", "biased", "least_loaded", "threshold")
ABOUT = (
    "name",
    "family",
    "strategy",
    "policy",
    "bias_scale",
)  # of a setting, what is no argument of its strategy
LOGS = ("optimal", "sinkhorn")  # those that add scores up, and so take logarithms of gates


def causal(setting: dict) -> bool:
    """Whether a setting never looks at later tokens of its group; dropping by position in time does
    not either.

    (A group of one decoding step of different documents has no later tokens: there every strategy
    is legal.)
    """
    return setting["strategy"] in CAUSAL or setting.get("priority") == "position"


def settings(
    names: Sequence[str],
    gammas: Sequence[float],
    bias_scales: Sequence[float],
    among: Sequence[int],
) -> list[dict]:
    """Settings of the named strategies, each with a "name": every γ of those with a capacity, every
    scale of the bias, every number of candidates.  "drop_position" is drop by position in time.  An
    unknown name is refused with the nearest.
    """
    known: dict[str, list[dict]] = {
        "drop": [dict(gamma=g) for g in gammas],
        "drop_position": [dict(gamma=g, priority="position") for g in gammas],
        "expanded_drop": [dict(gamma=g, extra=2) for g in gammas],
        "reroute": [dict(gamma=g) for g in gammas],
        "optimal": [dict(gamma=1.25)],
        "biased": [dict(bias_scale=s) for s in bias_scales],
        "least_loaded": [dict(among=m) for m in among],
        "activate_fewer": [dict(least=1)],
    }
    made = []
    for name in names:
        strategy = "drop" if name == "drop_position" else name
        strategies.find(strategy)
        for more in known.get(name, [{}]):
            value = next(
                (f" {more[key]:g}" for key in ("gamma", "bias_scale", "among") if key in more), ""
            )
            made.append(dict(name=name + value, family=name, strategy=strategy, **more))
    return made


@dataclass(frozen=True)
class Fits:
    """Learned from training text: table [vocabulary, k], and per layer bias [experts] and cut
    [experts].
    """

    table: Tensor
    bias: list[Tensor]
    cut: list[Tensor]
    gates: list[Tensor]


@torch.no_grad()
def fit(
    model: torch.nn.Module, ids: Tensor, *, batch_tokens: int, steps: int, rows: int = 16
) -> Fits:
    """Fit on the native states of training text ids [sequences, tokens]; batches of `batch_tokens`
    tokens.
    """
    layers = adapter.layers(model)
    gates: list[list[Tensor]] = [[] for _ in layers]
    with adapter.record(model, scores=True) as rec:
        for part in ids.split(rows):
            model(input_ids=part, use_cache=False)
            for number, layer in enumerate(layers):
                gates[number].append(layer.rule.scores(torch.cat(rec.scores[number])))
            rec.clear()
    whole = [torch.cat(part) for part in gates]
    batches = [list(part.split(batch_tokens)) for part in whole]
    k, vocabulary = layers[0].k, model.config.get_text_config().vocab_size
    frequency = np.bincount(ids.cpu().numpy().ravel(), minlength=vocabulary)
    bias = [capacity.fit_bias(part, k, steps=steps) for part in batches]
    cut = [capacity.fit_cut(part, k) for part in batches]
    return Fits(capacity.hash_table(frequency, layers[0].num_experts, k), bias, cut, whole)


def bound(
    setting: dict, group: Tensor, fits: Fits | None = None, seed: int = 0
) -> adapter.Strategy:
    """A setting as a strategy for `adapter.assign`, applied within groups: group [tokens], the
    number of each token's.

    Streams (round robin, least loaded) go through the groups in their order.
    """
    arguments = {name: value for name, value in setting.items() if name not in ABOUT}
    name = setting["strategy"]
    choose = strategies.find(name)

    def assign(scores: Tensor, call: Call) -> strategies.Assignment:
        rule, k, more = call.rule, call.index.shape[1], dict(arguments)
        gate = torch.exp if name in LOGS else None
        weigh = strategies.weights(
            setting.get("policy", "mass"),
            gate=gate,
            renormalise=rule.renormalised,
            scale=rule.scale,
        )
        if name == "random":
            more["seed"] = (seed, call.layer)
        if name == "hashed":
            return choose(scores, k, token_ids=call.token, table=fits.table, weigh=weigh)
        if name == "biased":
            more["bias"] = setting.get("bias_scale", 1.0) * fits.bias[call.layer]
        if name == "threshold":
            more["cut"] = fits.cut[call.layer]
        ready = partial(choose, k=k, weigh=weigh, **more)
        return strategies.in_groups(ready, group)(
            scores.clamp_min(1e-30).log() if name in LOGS else scores
        )

    return (
        adapter.native
        if name == "native" and setting.get("policy", "native") == "native"
        else assign
    )


def price_correlation(fits: Fits, k: int, tokens: int = 1024) -> np.ndarray:
    """[layers] correlation of the learned bias with minus the LP's prices at γ = 1 (in log gates),
    per layer.
    """
    found = []
    for gates, bias in zip(fits.gates, fits.bias, strict=True):
        price = strategies.optimal_prices(gates[:tokens].clamp_min(1e-30).log(), k, 1)
        found.append(np.corrcoef(-price.cpu().double(), bias.cpu().double())[0, 1])
    return np.array(found)


def leak(
    model: torch.nn.Module, ids: Tensor, other: Tensor, settings: Sequence[dict], fits: Fits
) -> dict[str, float]:
    """Largest change of the logits of the first half of ids [tokens] when its second half becomes
    that of `other`.

    The whole sequence is one group.  Experts are computed token by token (`batched_mm`), so that
    what is computed for a token cannot depend on how many others its expert has; a causal strategy
    then leaks exactly 0.
    """
    half, before = len(ids) // 2, model.config._experts_implementation
    group = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
    changed = torch.cat([ids[:half], other[half:]])
    found = {}
    model.set_experts_implementation("batched_mm")
    try:
        for setting in settings:
            logits = []
            for text in (ids, changed):
                with torch.no_grad(), adapter.assign(model, bound(setting, group, fits)):
                    logits.append(model(input_ids=text[None], use_cache=False).logits[0, :half])
            found[str(setting["name"])] = float((logits[0] - logits[1]).abs().max())
    finally:
        model.set_experts_implementation(before)
    return found
