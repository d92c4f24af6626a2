"""Advice as the screen and the page of `advise` show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from lib.commands import advice, level
from lib.commands.deciding import DOES, OFFERED, Rules
from lib.commands.subject import Subject
from lib.paper.plots_style import machines

PRICE = "Price in quality, measured on small models of this book, not on yours:"
HEADS = {
    "placement": "experts placed",
    "rho_p50": "busiest device / mean (median)",
    "rho_p95": "(P95)",
    "slowdown": "layer slower by",
    "slowdown_low": "(P5)",
    "slowdown_high": "(P95)",
    "received_mb": "MB received (P95)",
    "memory_gb": "GB of copies a device",
}
PRICES = {  # of `advice.prices`
    "way": "change of the router",
    "nats": "nats per token",
    "nats_low": "(low)",
    "nats_high": "(high)",
    "models": "models",
    "causal": "causal",
}


def readable(table: pd.DataFrame, heads: Mapping[str, str]) -> pd.DataFrame:
    """The columns that have `heads`, with these; shares as percentages, gains by their sign."""
    shown = table[[name for name in heads if name in table]].copy()
    for name in shown.columns:
        if name.startswith(("slowdown", "ceiling")):
            shown[name] = shown[name].map("{:.1%}".format)
        elif shown[name].dtype == bool or name == "causal":
            shown[name] = shown[name].map({True: "yes", False: "no"})
    return shown.round(3).rename(columns=heads)


def page(told: Sequence[str], table: pd.DataFrame, prices: pd.DataFrame, title: str) -> str:
    """One HTML page that needs nothing else: the sentences, the last of them between the tables."""
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
        "color-scheme:light dark}td,th{padding:.3em .8em;text-align:right}"
        "td:first-child,th:first-child{text-align:left}div{overflow-x:auto}"
    )
    first, *rest, last = (escape(line) for line in told)
    shown, below = (f"<div>{t.to_html(index=False, border=0)}</div>" for t in (table, prices))
    body = "".join(f"<p>{line}</p>" for line in rest) + f"{shown}<p>{last}</p>{below}"
    head = f"<title>{escape(title)}</title><style>{style}</style>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">{head}</head><body>'
        f"<h1>{escape(title)}</h1><p><strong>{first}</strong></p>{body}</body></html>"
    )


def sentences(
    case: advice.Case, row: pd.Series, own: Subject, rules: Rules, place: str = ""
) -> list[str]:
    """The advice, and below it what it rests on; place: the command that writes the placement."""
    known = advice.imbalance(case)
    dead = "" if np.isnan(known.dead) else f"; {known.dead:.0f} experts got nothing"
    size = f"{case.model.shape.hidden} wide, {case.model.shape.width} an expert"
    drift = (
        "Whether a placement lasts on other text is not known: the counts are of one text."
        if np.isnan(row.drift)
        else f"On another of its {len(own.parts)} texts the busiest device has {row.drift:.2f} "
        "times what a placement made for that text gives."
    )
    if place and not case.model.name:
        size += f" as in {level.MODEL}, as counts tell no sizes (--shape names others)"
    machine = machines(case.machine.origin)
    moved = bool(place) and row.action in (*DOES.values(), "rebalance")
    return [
        row.advice,
        *[f"The placement, as the file that an engine loads: {place}"] * moved,
        f"Your load, {own.kind}: Gini {known.gini:.2f} (a perfect router on as many tokens: "
        f"{known.gini_null:.2f}), MaxVio {known.max_violation:.2f}, mean of {known.layers:.0f} "
        f"layers of {known.experts:.0f} experts, {case.counted:,} tokens{dead}.",
        f"Time of a layer over that of even routes, simulated: batches of {case.tokens} tokens a "
        f"device drawn from counts, {case.devices} devices, {machine}, a layer "
        f"{size}. More than two devices, and other nodes, are extrapolated.",
        f"Placements are judged on {own.judged_on}. {drift}",
        f"Perfect balance would take {row.ceiling:.1%} off the time at most (elasticity "
        f"{row.beta:.2f}). Engines that offer what is advised: "
        f"{OFFERED[row.action] or 'none that is known'}.",
        f"Settings: {rules}.",
        PRICE,
    ]
