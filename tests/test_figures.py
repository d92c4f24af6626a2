"""The figures of the chapters: they know every name, drop no row, and say what they refuse."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lib.paper import (
    plots,
    plots_assignment,
    plots_explorers,
    plots_network,
    plots_profile,
    plots_training,
    plots_validation,
)

NEW = ("a new one", "another, also new")  # names that no table of the library lists


def made(names: dict[str, tuple], **numbers: float) -> pd.DataFrame:
    """A table with a row per combination of names, and numbers that all differ, with intervals."""
    table = pd.MultiIndex.from_product(names.values(), names=list(names)).to_frame(index=False)
    for column, start in numbers.items():
        table[column] = start + np.arange(len(table)) / 100
        table[f"{column}_low"], table[f"{column}_high"] = table[column] - 0.1, table[column] + 0.1
    return table


LAYER, LEVEL, TOKENS = (1, 2, 3), (0.0, 0.2, 0.8), (4, 64, 1024)
PARTS = dict.fromkeys(("start", "wire", "arithmetic", "order", "hidden"), 1.0)
KNOWN = pd.DataFrame(dict(level=LEVEL, slowdown=(0.0, 0.2, 0.6)))
FIGURES = {  # every figure: its call, a table with names that it does not know, what it must show
    "training": (
        plots_training.training,
        made({"arm": NEW, "tokens": (10**6, 10**7)}, nats=3, held_out=2, gini=0.5),
        ["nats", "held_out", "gini"],
    ),
    "layers_and_domains": (
        plots_profile.layers_and_domains,
        made({"domain": NEW, "arm": NEW, "layer": LAYER}, gini=0.2, cluster_null=0.1),
        ["gini"],
    ),
    "batch_tail": (
        plots_profile.batch_tail,
        made({"arm": ("null", *NEW), "batch": LAYER}, max_violation=0.5),
        ["max_violation"],
    ),
    "batch_size": (
        plots_profile.batch_size,
        made({"arm": NEW, "tokens": TOKENS}, gini=0.2),
        ["gini"],
    ),
    "sampling": (
        plots_profile.sampling,
        made({"arm": NEW, "documents": TOKENS}, gini=0.2, dead=3, hot=0.5),
        ["gini", "dead", "hot"],
    ),
    "structure": (
        plots_profile.structure,
        made({"arm": NEW, "source": NEW, "layer": LAYER}, share=0.2),
        ["share"],
    ),
    "routers": (
        plots_profile.routers,
        made({"router": NEW, "domain": ("pooled", *NEW)}, gini_share=0.2),
        ["gini_share"],
    ),
    "trade_off": (
        plots_assignment.trade_off,
        made({"arm": NEW, "family": NEW, "causal": (True, False)}, p95=1, delta=0.5),
        ["p95", "delta"],
    ),
    "sweep": (
        lambda table: plots_assignment.sweep(table, "gamma", "γ"),
        made({"arm": NEW, "family": NEW, "gamma": (1, 1.5)}, delta=0.5),
        ["delta"],
    ),
    "loss_curves": (
        plots_training.loss_curves,
        made({"loss": NEW, "layer": LAYER, "step": tuple(range(30))}, gini=0.5),
        ["gini"],
    ),
    "layer_gini": (
        plots_training.layer_gini,
        made({"loss": NEW, "layer": LAYER}, gini=0.5),
        ["gini"],
    ),
    "front": (
        plots_training.front,
        made({"loss": NEW, "coefficient": (0.1, 1.0)}, max_violation=1, nats=2),
        ["max_violation", "nats"],
    ),
    "matched": (
        lambda table: plots_training.matched(table, 0.005),
        made({"loss": NEW}, difference=0.0),
        ["difference"],
    ),
    "router_states": (
        plots_training.router_states,
        made({"loss": ("start", *NEW)}, router_entropy=1, specialisation=0.2),
        ["router_entropy", "specialisation"],
    ),
    "level_times": (
        plots_network.level_times,
        made({"fabric": NEW, "level": LEVEL}, mean_us=1, p50_us=1, p95_us=2, p99_us=3),
        ["mean_us", "p50_us", "p95_us", "p99_us"],
    ),
    "slowdown_families": (
        lambda table: plots_network.slowdown_families(table, KNOWN),
        made({"family": NEW, "level": LEVEL}, slowdown=0.5),
        ["slowdown"],
    ),
    "layer_times": (
        plots_network.layer_times,
        made({"fabric": NEW, "arm": NEW, "layer": LAYER}, over_even=1.5),
        ["over_even"],
    ),
    "carried": (
        plots_network.carried,
        made({"arm": NEW, "shape": NEW, "tokens": TOKENS}, slowdown=0.5),
        ["slowdown"],
    ),
    "step_levels": (
        plots_network.step_levels,
        made({"shape": NEW, "devices": (8,), "tokens": TOKENS, "level": LEVEL}, slowdown=0.5),
        ["slowdown"],
    ),
    "betas": (
        plots_network.betas,
        made({"fabric": NEW, "shape": NEW, "devices": (8,), "tokens": TOKENS}, beta=0.5),
        ["beta"],
    ),
    "anatomy": (
        plots_network.anatomy,
        made({"shape": NEW, "tokens": TOKENS}, **PARTS),
        ["start", "wire", "arithmetic", "order"],
    ),
    "placements": (
        lambda table: plots_network.placements(table, "ρ"),
        made({"group": NEW, "placement": ("in order", *NEW), "where": NEW}, rho=1.5),
        ["rho"],
    ),
    "scaling": (
        plots_network.scaling,
        made({"fabric": NEW, "devices": (8, 64)}, slowdown=0.5, bound_s=1, exact_s=2),
        ["slowdown"],
    ),
    "parity": (
        plots_validation.parity,
        made({"experiment": NEW, "part": ("fit", *NEW)}, measured_us=5, predicted_us=6),
        ["measured_us", "predicted_us"],
    ),
    "error_shares": (
        plots_validation.error_shares,
        made({"experiment": NEW, "n": LAYER}, error=0.5),
        ["error"],
    ),
    "elasticities": (
        plots_validation.elasticities,
        made({"shape": NEW, "tokens": TOKENS}, beta=0.5, beta_arithmetic=0.3),
        ["beta", "beta_arithmetic"],
    ),
    "published_times": (
        plots_validation.published_times,
        made({"phase": NEW, "devices": (8, 64), "part": NEW[:1]}, time_us=5, predicted_us=6),
        ["time_us", "predicted_us"],
    ),
}
SCALED = {"step_levels": lambda x: 1 + x, "error_shares": lambda x: 100 * x}  # on its axis
each_figure = pytest.mark.parametrize(
    ("draw", "table", "shown"), FIGURES.values(), ids=list(FIGURES)
)


def numbers(fig) -> set[float]:
    """All numbers at which something stands in a figure, rounded."""
    found = [
        value for ax in fig.axes for line in ax.get_lines() for value in line.get_xydata().ravel()
    ]
    found += [bar.get_height() for ax in fig.axes for bar in ax.patches]
    return set(np.round(np.asarray(found, float), 9))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_know_every_name_and_drop_no_row(name):
    draw, table, shown = FIGURES[name]
    found = numbers(draw(table))
    scaled = SCALED.get(name, lambda x: x)
    for column in shown:
        wanted = (
            1 + table[column]
            if (name, column) == ("scaling", "slowdown")
            else scaled(table[column])
        )
        assert set(np.round(wanted, 9)) <= found, column


@each_figure
def test_figures_of_nothing_are_drawn_too(draw, table, shown):
    assert draw(table.iloc[:0]).axes


@each_figure
def test_figures_refuse_what_they_cannot_tell(draw, table, shown):
    for column in shown:
        with pytest.raises(ValueError, match=rf"lacks .*'{column}.*: must be among its columns"):
            draw(table.drop(columns=column))
    for column in table.select_dtypes(exclude="number").columns.difference(["causal"]):
        unnamed = table.assign(**{column: [None, *table[column][1:]]})
        with pytest.raises(
            ValueError, match=f"'{column}': is missing in [1-9]+ rows: must be in each"
        ):
            draw(unnamed)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_at_an_edge_of_the_image(name):
    """No ink within two pixels of an edge: neither a legend, nor a label, nor a long tick."""
    draw, table, _ = FIGURES[name]
    fig = draw(table)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    ink = np.asarray(canvas.buffer_rgba())[..., :3].min(2) < 250
    edges = (ink[:2], ink[-2:], ink[:, :2], ink[:, -2:])
    assert ink.any() and not any(edge.any() for edge in edges)


def test_the_trade_off_names_few_strategies_and_tells_of_the_rest():
    _, table, _ = FIGURES["trade_off"]
    families = [f"strategy {i}" for i in range(12)]
    table = made({"arm": NEW, "family": tuple(families)}, p95=1, delta=0.5).assign(causal=True)
    table["p95"], table["delta"] = 2.0, [i / 10 for i in range(12)] * 2
    fig = plots_assignment.trade_off(table)
    told, columns = [text.get_text() for text in fig.legends[0].get_texts()], fig.legends[0]._ncols
    named = [*families[: len(plots_assignment.NAMED)], "others"]  # row by row, filled by columns
    assert told == [name for start in range(columns) for name in named[start::columns]]
    assert {i / 10 for i in range(5)} <= numbers(fig)
    words = fig.axes[0].texts[0].get_text()  # what lies above the panel
    assert words == "3 more above, up to 1.1"
    known = table.replace({"family": {"strategy 3": "biased", "strategy 7": "drop"}})
    told = plots_assignment.trade_off(known).legends[0].get_texts()
    assert [text.get_text() for text in told] == ["frozen bias", "drop", "others"]


def test_layers_are_drawn_on_their_most_devices_alone():
    draw, table, _ = FIGURES["step_levels"]
    larger = table[table["shape"] == NEW[0]].assign(devices=32, slowdown=5.0)
    first, second = draw(pd.concat([larger, table])).axes  # the second shape fits on 8 alone
    heights = [
        {float(y) for line in ax.get_lines() for y in line.get_ydata()} for ax in (first, second)
    ]
    assert heights[0] == {1.0, 6.0} and max(heights[1]) < 3


def test_the_tail_of_batches_is_the_share_above():
    """Of 0.1, 0.2, 0.3, 0.4 three quarters lie above 0.1, one above 0.3, none above 0.4."""
    samples = pd.DataFrame(dict(arm="null", max_violation=[0.3, 0.1, 0.4, 0.2]))
    (line,) = plots_profile.batch_tail(samples).axes[0].get_lines()
    at, share = line.get_xydata().T
    assert line.get_drawstyle() == "steps-pre"  # a share holds down to the mark before
    shares = share[np.searchsorted(at, [0.05, 0.15, 0.25, 0.35])]
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25])


def test_hollow_marks_are_what_is_not_causal():
    draw, table, _ = FIGURES["trade_off"]
    table = table[table.causal == (table.family == NEW[0])]
    fig = draw(table)
    marks = [line for line in fig.axes[0].get_lines() if line.get_marker() not in ("None", "")]
    assert [line.get_markerfacecolor() for line in marks] == [plots.style(NEW[0]).colour, "white"]
    fills = [key.get_markerfacecolor() for key in fig.legends[0].legend_handles]
    assert fills == [plots.style(NEW[0]).colour, "white", "white"]  # the last says what hollow is


def test_a_map_per_checkpoint_has_its_mean_white_and_layers_downward():
    loads = {NEW[0]: np.array([[1.0, 3.0], [2.0, 2.0]]), NEW[1]: np.array([[5.0, 1.0], [4.0, 4.0]])}
    fig = plots_profile.load_maps(loads)
    maps = [ax for ax in fig.axes if ax.get_title()]
    assert [ax.get_title() for ax in maps] == list(NEW)
    assert [ax.collections[0].get_array().tolist() for ax in maps] == [
        [[1.5, 0.5], [1, 1]],
        [[5 / 3, 1 / 3], [1, 1]],
    ]
    for ax in maps:
        assert ax.get_ylim() == (2.5, 0.5) and ax.collections[0].norm(1.0) == 0.5
    ratio = np.array([[np.nan, 64.0], [1.0, np.nan]])
    (area,) = plots_profile.coactivation({NEW[0]: ratio}).axes[0].collections
    assert area.get_array().filled(9).tolist() == [[9, 4], [0, 9]]  # log2, at most of 16


def test_explorers_hold_every_choice():
    loads = {name: np.array([[1.0, 3.0]]) for name in NEW}
    found = plots_explorers.load_explorer(loads)
    assert list(found["choices"]) == list(NEW) and found["data"][0]["z"] == [[0.5, 1.5]]
    table = made({"shape": NEW, "devices": (8, 32), "tokens": TOKENS, "level": LEVEL}, **PARTS)
    found = plots_explorers.anatomy_explorer(table.assign(hidden=0.0))
    assert list(found["choices"]) == [
        f"{name}, {count} devices" for name in NEW for count in (8, 32)
    ]
    assert [bar["name"] for bar in found["data"]] == ["start", "wire", "arithmetic", "order"]
    choices = found["choices"].values()
    assert [us for choice in choices for us in choice["customdata"][1]] == table.wire.round(
        2
    ).tolist()
    for choice in choices:  # the parts of the lowest level are one, per number of tokens
        height = np.sum(choice["y"], axis=0)
        assert height[:: len(LEVEL)] == pytest.approx(np.ones(len(TOKENS)), abs=1e-3)
        assert (height[2 :: len(LEVEL)] > 1).all()


@each_figure
def test_a_figure_is_drawn_where_no_interval_is_known(draw, table, shown):
    """Few documents or seeds leave the ends of all intervals NaN."""
    ends = [column for column in table if column.endswith(("_low", "_high"))]
    assert draw(table.assign(**dict.fromkeys(ends, float("nan")))).axes
