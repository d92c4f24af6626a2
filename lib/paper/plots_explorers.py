"""Interactive figures, as plotly's dictionaries: data, layout, and the choices of a menu."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.paper.plots import needs
from lib.paper.plots_style import STYLES

PARTS = ("start", "wire", "arithmetic", "order", "hidden")


def load_explorer(loads: Mapping[str, np.ndarray]) -> dict:
    """The maps of `loads` ([layers, experts] each, by name) as an interactive figure with a choice;
    experts in own order.
    """
    relative = {
        name: np.round(load / load.mean(1, keepdims=True), 3) for name, load in loads.items()
    }
    top = max(2.0, *(float(part.max()) for part in relative.values()))
    choices = {name: {"z": [part.tolist()]} for name, part in relative.items()}
    scale = [
        [0, "#2166AC"],
        [1 / top, "#F7F7F7"],
        [1, "#B2182B"],
    ]  # white is the mean, in every map of the menu
    trace = dict(
        type="heatmap",
        z=next(iter(relative.values())).tolist(),
        zmin=0,
        zmax=top,
        colorscale=scale,
        x0=1,
        y0=1,
        colorbar=dict(title=dict(text="load / mean")),
        hovertemplate="layer %{y}, expert %{x}: %{z:.2f} × the mean<extra></extra>",
    )
    axis = dict(dtick=1, fixedrange=True)
    layout = dict(
        xaxis=dict(title=dict(text="expert"), **axis),
        yaxis=dict(title=dict(text="layer"), autorange="reversed", **axis),
        margin=dict(l=50, r=10, t=15, b=45),
    )
    return dict(data=[trace], layout=layout, choices=choices)


def anatomy_explorer(table: pd.DataFrame) -> dict:
    """A layer's time by part as an interactive figure (columns shape, devices, tokens, level,
    start, wire, arithmetic, order, hidden, in µs): a menu of shape and devices, stacked bars over
    tokens and level.

    A bar is relative to the whole time of its tokens at the lowest level, so that small batches
    are seen beside large ones; the µs stand in its tip.
    """
    where, names = "plots_explorers.anatomy_explorer", ["shape", "devices"]
    needs(where, table, "tokens", "level", *PARTS, names=names)
    parts = [part for part in PARTS if table[part].abs().max() > 0]
    choices = {}
    for (shape, devices), own in table.groupby(names, sort=False):
        even = own[list(PARTS)].sum(axis=1)[own.groupby("tokens")["level"].idxmin()]
        whole = own.tokens.map(dict(zip(own.tokens[even.index], even, strict=True)))
        x = [[f"{n} tokens" for n in own.tokens], [f"{level:g}" for level in own.level]]
        choices[f"{shape}, {devices} devices"] = {
            "x": [x] * len(parts),
            "y": [np.round(own[part] / whole, 4).tolist() for part in parts],
            "customdata": [np.round(own[part], 2).tolist() for part in parts],
        }
    first = next(iter(choices.values()), {})
    data = [
        dict(
            type="bar",
            name=part,
            **{key: rows[i] for key, rows in first.items()},
            marker=dict(color=STYLES[part].colour),
            hovertemplate="%{x}: %{customdata:.0f} µs<extra>" + part + "</extra>",
        )
        for i, part in enumerate(parts)
    ]
    layout = dict(
        barmode="relative",
        xaxis=dict(title=dict(text="tokens per device, level"), fixedrange=True),
        yaxis=dict(title=dict(text="time / at the lowest level"), fixedrange=True),
        legend=dict(orientation="h", y=1.12),
        margin=dict(l=60, r=10, t=30, b=70),
    )
    return dict(data=data, layout=layout, choices=choices)
