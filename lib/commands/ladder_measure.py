"""What one model of the ladder is evaluated on, by the declared protocols.

Everything comes back as numbers that JSON can hold; counts are whole, nats are rounded.  What is
computed from them (intervals, tests, drift) is `ladder_results`' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from lib.balance import evaluate, objective
from lib.model.corpus import Document
from lib.routing import adapter, assignment, bind


@dataclass(frozen=True)
class Text:
    """The text of all runs: the tokens trained on, in one row and by domain, and the held-out
    documents, whole.
    """

    stream: np.ndarray
    domains: dict[str, np.ndarray]
    held_out: list[Document]


def profile(model: torch.nn.Module, text: Text, p: SimpleNamespace) -> dict:
    """Held-out nats, hits and expert counts of every document's first tokens, counts of serving
    batches, and the router's entropy per layer.
    """
    size = 65_536 if next(model.parameters()).is_cuda else 8_192
    with objective.biased(model):
        table, routes = evaluate.routed(
            model,
            [_cut(document, p.PROFILE_TOKENS) for document in text.held_out],
            serving_tokens=p.SERVING_TOKENS,
            draws=p.SERVING_BATCHES,
            batch_tokens=size,
            context=p.PROFILE_TOKENS,
        )
    return _documents(table.domain, table.cluster) | {
        "tokens": table.tokens.tolist(),
        "nats": table.nats.round(2).tolist(),
        "correct": table.correct.tolist(),
        "counts": routes["counts"].tolist(),
        "serving": routes["serving"][: p.SERVING_BATCHES].tolist(),
        "router_entropy": np.round(routes["router_entropy"], 4).tolist(),
    }


def gain(model: torch.nn.Module, text: Text, p: SimpleNamespace) -> dict:
    """Of the same, what a pair is compared by: nats of every document, and the load of all."""
    found = profile(model, text, p)
    load = np.sum(found.pop("counts"), axis=0).tolist()
    return {k: found[k] for k in found if k not in ("correct", "serving")} | {"load": load}


def brief(model: torch.nn.Module, text: Text, p: SimpleNamespace) -> dict:
    """Of the same, what a model under way is told by: nats and counts per cluster."""
    found = profile(model, text, p)
    cluster = np.asarray(found["cluster"])
    counts, nats, tokens = (np.asarray(found[name]) for name in ("counts", "nats", "tokens"))
    rows = range(len(found["clusters"]))
    return {
        "nats": [round(float(nats[cluster == c].sum()), 2) for c in rows],
        "tokens": [int(tokens[cluster == c].sum()) for c in rows],
        "counts": [counts[cluster == c].sum(0).tolist() for c in rows],
    }


def prefix(
    model: torch.nn.Module, text: Text, p: SimpleNamespace, policies: Sequence[str] | None = None
) -> dict:
    """Dropping and re-routing at every γ under every policy of weights, by the prefix protocol:
    nats per document, and what it did to the choice.
    """
    whole, grid = assignment.grid(text.held_out, p.PREFIX_TOKENS)
    ids = torch.from_numpy(grid).to(next(model.parameters()).device)
    group = torch.from_numpy(assignment.prefix_groups(*grid.shape)).to(ids.device)
    plan = [dict(bind.settings(["native"], [], [], [])[0], policy="native")]
    plan += [
        dict(setting, policy=policy)
        for policy in policies or p.POLICIES
        for setting in bind.settings(["drop", "reroute"], p.GAMMAS, [], [])
    ]
    rows = []
    for setting in plan:
        made = assignment.run(
            model, ids, bind.bound(setting, group), group, first=grid.shape[1] // 2
        )
        rows.append(_about(setting, made) | {"nats": made["nats"].round(2).tolist()})
    facts = _documents([d.domain for d in whole], [d.cluster for d in whole])
    return facts | {"tokens": int(made["tokens"]), "settings": rows}


def decode(model: torch.nn.Module, text: Text, p: SimpleNamespace) -> dict:
    """Every strategy that is legal in a decoding step, in groups of one position of all windows:
    nats per cluster, and of the native choice expert counts [groups, layers, experts] of every
    second scored group.
    """
    found, grid = windows(text.held_out, p.WINDOW, p.WINDOWS_PER_DOMAIN)
    ids = torch.from_numpy(grid).to(next(model.parameters()).device)
    group = torch.arange(p.WINDOW, device=ids.device).repeat(len(ids))
    fits = fit(model, text, p)
    names, cluster = np.unique([document.cluster for document in found], return_inverse=True)
    rows = []
    for setting in decode_settings(p):
        made = assignment.run(
            model, ids, bind.bound(setting, group, fits), group, first=p.WINDOW // 2
        )
        nats = np.bincount(cluster, made["nats"])
        rows.append(_about(setting, made) | {"nats": nats.round(2).tolist()})
        if setting["family"] == "native":
            counts = made["load"].astype(int).transpose(1, 0, 2)[::2]
            rows[-1]["counts"] = counts.tolist()
    return {
        "group_tokens": len(ids),
        "clusters": names.tolist(),
        "tokens": (np.bincount(cluster) * made["tokens"]).tolist(),
        "bias": [np.round(bias.cpu().numpy(), 4).tolist() for bias in fits.bias or []],
        "settings": rows,
    }


def placed(model: torch.nn.Module, text: Text, p: SimpleNamespace) -> dict:
    """What a placement is made of and held against a frozen bias on, in the groups of `decode`; the
    windows of every second cluster, from the first in alphabetical order, validate.

    made [domains, layers, experts]: native counts of the validation windows.  scales: of the native
    choice (scale 0) and of the bias at each scale, nats per cluster.  scale: the largest that costs
    at most `BIAS_COST` on the validation clusters.  native, biased [2, groups, layers, experts]:
    counts under the native choice and at that scale, of the validation windows and of the others.
    """
    found, grid = windows(text.held_out, p.WINDOW, p.WINDOWS_PER_DOMAIN)
    ids = torch.from_numpy(grid).to(next(model.parameters()).device)
    fits = fit(model, text, p)
    names, cluster = np.unique([document.cluster for document in found], return_inverse=True)
    domains, domain = np.unique([document.domain for document in found], return_inverse=True)
    half, tokens = cluster % 2, np.bincount(cluster) * (p.WINDOW - p.WINDOW // 2)

    def under(setting: dict, groups: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Nats per window, and counts [groups, layers, experts]."""
        group = torch.from_numpy(np.ascontiguousarray(groups).reshape(-1)).to(ids.device)
        made = assignment.run(model, ids, bind.bound(setting, group, fits), group, first=first)
        return made["nats"], made["load"].astype(int).transpose(1, 0, 2)

    position = np.arange(p.WINDOW) + p.WINDOW * half[:, None]  # a group of each half
    validation = np.arange(len(names)) % 2 == 0
    rows, counts = [], {}
    native, *biased = _scaled(p)
    for setting in (native, *biased):
        each, load = under(setting, position, p.WINDOW // 2)
        nats, scale = np.bincount(cluster, each), setting["bias_scale"]
        rows.append({"scale": scale, "nats": nats.round(2).tolist()})
        cost = (nats - np.array(rows[0]["nats"]))[validation].sum()
        if not scale or cost <= p.BIAS_COST * tokens[validation].sum():
            counts[scale] = load.reshape(2, -1, *load.shape[1:]).tolist()
            counts = {own: counts[own] for own in {0.0, max(counts)}}
    of_domain = np.broadcast_to((domain + len(domains) * half)[:, None], grid.shape)
    return {
        "group_tokens": len(ids),
        "clusters": names.tolist(),
        "tokens": tokens.tolist(),
        "domains": domains.tolist(),
        "made": under(native, of_domain, 0)[1][: len(domains)].tolist(),
        "scales": rows,
        "scale": max(counts),
        "native": counts[0.0],
        "biased": counts[max(counts)],
    }


def _scaled(p: SimpleNamespace) -> list[dict]:
    """The native choice, and the bias at each scale."""
    plan = [dict(bind.settings(["native"], [], [], [])[0], policy="native", bias_scale=0.0)]
    made = bind.settings(["biased"], [], p.PLACED_SCALES, [])
    return plan + [dict(setting, policy=p.WEIGHTS["biased"]) for setting in made]


def decode_settings(p: SimpleNamespace) -> list[dict]:
    """Every strategy but the linear programme, as declared, with its authors' weights."""
    capped = ("drop", "drop_position", "expanded_drop", "reroute")
    plain = ("native", "random", "round_robin", "hashed", "threshold", "activate_fewer")
    names = (*plain, *capped, "expert_choice", "biased", "least_loaded")
    plan = bind.settings(names, p.DECODE_GAMMAS, p.BIAS_SCALES, p.AMONG)
    plan += [
        dict(name=f"sinkhorn {t:g}", family="sinkhorn", strategy="sinkhorn", temperature=t)
        for t in p.TEMPERATURES
    ]
    return [dict(setting, policy=p.WEIGHTS[setting["family"]]) for setting in plan]


def windows(
    documents: Sequence[Document], width: int, per_domain: int
) -> tuple[list[Document], np.ndarray]:
    """The document of every window, and the windows [windows, width]: `per_domain` of each domain,
    disjoint.

    Clusters take turns, within a cluster documents, and of a document the windows from its
    beginning on.  Refused: a domain that has too few.
    """
    owners, rows = [], []
    for domain in sorted({document.domain for document in documents}):
        lines: dict[str, list[list]] = {}
        for document in documents:
            if document.domain == domain:
                pieces = _pieces(document, width)
                lines.setdefault(document.cluster, []).append(pieces)
        taken = _in_turn([list(_in_turn(own)) for _, own in sorted(lines.items())])[:per_domain]
        if len(taken) < per_domain:
            raise ValueError(
                f"ladder: {domain}: {len(taken)} windows of {width} tokens: must be {per_domain}"
            )
        owners += [document for document, _ in taken]
        rows += [row for _, row in taken]
    return owners, np.array(rows)


def _pieces(document: Document, width: int) -> list[tuple[Document, Sequence[int]]]:
    ids = document.token_ids
    return [
        (document, ids[start : start + width]) for start in range(0, len(ids) - width + 1, width)
    ]


def _in_turn(lines: list[list]) -> list:
    """The items of all lines, one of each line in turn."""
    return [
        line[i] for i in range(max(map(len, lines), default=0)) for line in lines if i < len(line)
    ]


@torch.no_grad()
def fit(model: torch.nn.Module, text: Text, p: SimpleNamespace) -> bind.Fits:
    """What strategies learn beforehand, on training text in which all domains are alike: table and
    thresholds from the native choice, the bias while the model chooses by it.
    """
    device = next(model.parameters()).device
    draw = training_batches(text, p)
    sample = torch.cat([next(draw) for _ in range(max(1, 128 // p.FIT_SEQUENCES))]).to(device)
    fits = bind.fit(model, sample, batch_tokens=4096, steps=1)
    bias = objective.selection_bias(model)
    rate = torch.tensor(p.FIT_RATE, device=device)
    with objective.biased(model), adapter.record(model) as rec:

        def step(batch: Tensor) -> tuple[Tensor, ...]:
            rec.clear()
            model(input_ids=batch, use_cache=False, logits_to_keep=1)
            load = rec.load
            objective.update_bias(bias, load, rate)
            return (load,)

        replayed = objective.replayed(step, model, sample[: p.FIT_SEQUENCES])
        bias.zero_()
        for number in range(p.FIT_STEPS):
            rate.fill_(p.FIT_RATE * (1 - number / p.FIT_STEPS))
            replayed(next(draw).to(device))
    learned = [row.clone() for row in bias]
    del model.selection_bias
    return replace(fits, bias=learned)


def training_batches(text: Text, p: SimpleNamespace) -> Iterator[Tensor]:
    """Batches [FIT_SEQUENCES, SEQUENCE_TOKENS] int64 of training text, random windows, domains in
    turn; the same for every model.
    """
    rng, names, number = np.random.default_rng(0), sorted(text.domains), 0
    while True:
        rows = []
        for _ in range(p.FIT_SEQUENCES):
            own = text.domains[names[number % len(names)]]
            start = int(rng.integers(len(own) - p.SEQUENCE_TOKENS))
            rows.append(own[start : start + p.SEQUENCE_TOKENS])
            number += 1
        yield torch.from_numpy(np.stack(rows).astype(np.int64))


def _cut(document: Document, tokens: int) -> Document:
    return replace(document, token_ids=document.token_ids[:tokens])


def _documents(domain: Sequence[str], cluster: Sequence[str]) -> dict:
    """Domain and cluster of documents, as numbers into lists of names."""
    (domains, d), (clusters, c) = (
        np.unique(np.asarray(names), return_inverse=True) for names in (domain, cluster)
    )
    return {
        "domains": domains.tolist(),
        "clusters": clusters.tolist(),
        "domain": d.tolist(),
        "cluster": c.tolist(),
    }


def _about(setting: dict, made: dict) -> dict:
    """What a setting was, and what it did beside its cost."""
    known = ("name", "family", "policy", "gamma", "bias_scale", "among", "temperature")
    return {name: setting[name] for name in known if name in setting} | {
        "p95": round(float(np.quantile(made["max_over_nominal"], 0.95)), 4),
        "p95_layers": np.quantile(made["max_over_nominal"], 0.95, axis=1).round(4).tolist(),
        "accuracy": round(float(made["correct"].sum() / made["tokens"] / len(made["nats"])), 5),
        "churn": round(float(made["churn"]), 4),
        "dropped": round(float(made["dropped"]), 4),
    }
