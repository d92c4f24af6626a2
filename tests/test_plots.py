"""Figures: every name has one look, every row is drawn, and what cannot be drawn is refused."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from lib.balance import losses
from lib.paper import plots, plots_network, plots_style, plots_synthesis, plots_tables, svg
from lib.routing import table

NEW = ("a new one", "another, also new")  # names that no table of the library lists
GROUPS = {
    "losses": ["start", *losses.LOSSES],
    "strategies": list(table.STRATEGIES),
    "checkpoints": ["without", "with", "null"],
    "families of routes": ["power", "sorted", "lognormal", "one_hot", "predecessor"],
    "sources": ["token", "position", "domain", "second", "before"],
    "percentiles": ["mean", "P50", "P95", "P99"],
}


def drawn(ax) -> list[tuple[list, list]]:
    """The data of the lines of an Axes."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()]


def told(fig) -> list[str]:
    """The texts of the legend of a figure."""
    return [text.get_text() for text in fig.legends[0].get_texts()]


def two_arms() -> pd.DataFrame:
    """Two checkpoints at three layers, not in their order; only one of them has intervals."""
    return pd.DataFrame(
        dict(
            arm=["with", "with", "with", "without", "without", "without"],
            layer=[2, 1, 3, 1, 2, 3],
            gini=[0.2, 0.1, 0.3, 0.6, 0.5, 0.4],
            gini_low=[0.15, 0.05, 0.25, np.nan, np.nan, np.nan],
            gini_high=[0.25, 0.15, 0.35, np.nan, np.nan, np.nan],
        )
    )


@pytest.mark.parametrize("names", GROUPS.values(), ids=list(GROUPS))
def test_what_stands_in_one_figure_looks_different(names):
    looks = [plots.style(name) for name in names]
    assert len({(look.colour, look.mark, look.dash) for look in looks}) == len(names)


def test_marks_and_colours_of_strategies_and_losses_differ_each():
    """A reader who sees no colour tells them by their marks, and the other way round; so of those
    that this book names, others get a look of their own.
    """
    for known in (losses.LOSSES, table.STRATEGIES):
        names = [name for name in known if name in plots_style.STYLES]
        assert len({plots.style(name).mark for name in names}) == len(names)
        assert len({plots.style(name).colour for name in names}) == len(names)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none()))
def test_any_name_has_a_look_that_can_be_drawn_and_words(name):
    look = plots.style(name)
    Line2D([0], [0], color=look.colour, marker=look.mark, ls=look.dash)  # refuses what it is not
    assert look == plots.style(str(name)) and "_" not in plots.label(name)


def test_a_new_name_looks_the_same_in_every_process():
    code = "from lib.paper.plots_style import style; import json, sys"
    code += "; print(json.dumps([vars(style(name)) for name in sys.argv[1:]]))"
    for seed in "1", "2":  # of Python's own hash of texts
        env = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, *NEW]
        found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True).stdout
        assert json.loads(found) == json.loads(json.dumps([vars(plots.style(n)) for n in NEW]))
    assert plots.style(NEW[0]) != plots.style(NEW[1])


def test_words():
    assert plots.label("one_hot") == "one hot expert"
    assert plots.label("softmax_sampling") == "softmax sampling" and plots.label(8) == "8"


def test_lines_are_drawn_in_the_order_of_x_with_their_band():
    fig = plots.lines(two_arms(), "layer", "gini", by="arm", xlabel="layer", ylabel="Gini")
    (ax,) = fig.axes
    assert drawn(ax) == [([1, 2, 3], [0.1, 0.2, 0.3]), ([1, 2, 3], [0.6, 0.5, 0.4])]
    assert [line.get_color() for line in ax.get_lines()] == [
        plots.style(name).colour for name in ("with", "without")
    ]
    with_, without = (area.get_paths() for area in ax.collections)
    corners = {(x, round(y, 9)) for path in with_ for x, y in path.vertices}
    low, high = {(1, 0.05), (2, 0.15), (3, 0.25)}, {(1, 0.15), (2, 0.25), (3, 0.35)}
    assert corners == low | high and not without
    assert list(ax.get_xticks()) == [1, 2, 3]
    assert told(fig) == ["without balance loss", "with balance loss"]  # whatever the table's order


def test_a_legend_says_what_the_bands_show():
    words = dict(by="arm", xlabel="layer", ylabel="Gini")
    fig = plots.lines(two_arms(), "layer", "gini", **words, shade="nine in ten")
    assert told(fig)[-1] == "nine in ten" and len(told(fig)) == 3


def test_lines_that_lie_on_each_other_are_one_that_names_them_all():
    """Not those that lie on each other in one panel only, or that lack a point."""
    heights = {
        "drop": (1.0, 2.0),
        "random": (1.5, 2.01),
        "reroute": (1.01, 2.03),
        "optimal": (1.0,),
    }
    rows = [
        dict(arm=arm, family=name, x=x, y=y + (arm == "with" and name == "random"))
        for arm in ("without", "with")
        for name, own in heights.items()
        for x, y in enumerate(own)
    ]
    table = pd.DataFrame(rows)
    shown, called = plots_tables.joined(table, "x", "y", by="family", panel="arm")
    assert called == {"reroute": "drop, re-route", "random": "random", "optimal": "optimal"}
    assert set(shown.family) == set(called) and len(shown) == 10
    fig = plots.lines(shown, "x", "y", by="family", panel="arm", xlabel="", ylabel="", words=called)
    assert sorted(told(fig)) == sorted(called.values())


def test_without_columns_of_an_interval_there_is_no_band():
    table = two_arms().drop(columns=["gini_low", "gini_high"])
    fig = plots.lines(table, "layer", "gini", by="arm", xlabel="layer", ylabel="Gini")
    assert not fig.axes[0].collections


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_every_panel_is_there_and_every_line_in_it(count):
    parts = [
        two_arms().assign(domain=f"domain {i}", gini=i + two_arms().gini) for i in range(count)
    ]
    options = dict(by="arm", panel="domain", xlabel="layer", ylabel="Gini")
    fig = plots.lines(pd.concat(parts), "layer", "gini", **options)
    assert [ax.get_title() for ax in fig.axes] == [f"domain {i}" for i in range(count)]
    for i, ax in enumerate(fig.axes):
        assert np.allclose(
            [y for _, y in drawn(ax)],
            [i + np.array([0.1, 0.2, 0.3]), i + np.array([0.6, 0.5, 0.4])],
        )
    grid = fig.axes[0].get_subplotspec().get_gridspec()
    places = [ax.get_subplotspec() for ax in fig.axes]
    for ax, place in zip(fig.axes, places, strict=True):
        lowest = not any(
            other.colspan == place.colspan and other.rowspan.start > place.rowspan.start
            for other in places
        )
        assert (ax.get_xlabel() == "layer") == lowest
        assert (ax.get_ylabel() == "Gini") == (place.colspan.start == 0)
    assert grid.nrows * grid.ncols - count < grid.ncols


def test_numbers_go_from_dark_to_light_and_are_called_by_what_they_count():
    rows = [
        dict(tokens=tokens, devices=devices, level=level, time=tokens + devices + level)
        for tokens in (4096, 4, 64)
        for devices in (32, 8)
        for level in (0.0, 0.5)
    ]
    options = dict(by="tokens", dash="devices", xlabel="level", ylabel="time")
    fig = plots.lines(pd.DataFrame(rows), "level", "time", **options)
    of_devices = ["8 devices", "32 devices"]
    assert sorted(told(fig)) == sorted(["4 tokens", "64 tokens", "4,096 tokens", *of_devices])
    lines = {line.get_ydata()[0]: line for line in fig.axes[0].get_lines()}
    assert set(lines) == {t + d for t in (4, 64, 4096) for d in (8, 32)}
    light = [sum(to_rgb(lines[tokens + 8].get_color())) for tokens in (4, 64, 4096)]
    assert light == sorted(light) and len(set(light)) == 3
    assert {lines[t + 8].get_linestyle() for t in (4, 64, 4096)} == {"-"}
    assert {lines[t + 32].get_linestyle() for t in (4, 64, 4096)} == {"--"}


REFUSED = {
    "a column": (lambda t: t.drop(columns="gini"), {}, "plots.lines: lacks 'gini': must be among"),
    "an end": (lambda t: t.drop(columns="gini_low"), {}, "plots.lines: lacks 'gini_low': must"),
    "a panel": (lambda t: t, dict(panel="domain"), "plots.lines: lacks 'domain': must be among"),
    "a name": (
        lambda t: t.replace({"arm": {"with": None}}),
        {},
        "plots.lines: 'arm': is missing in 3 rows: must be in each",
    ),
    "two rows": (
        lambda t: t.assign(layer=1),
        {},
        "plots.lines: arm = with, layer = 1: has several rows: must be one per line and layer",
    ),
    "a logarithm": (
        lambda t: t.assign(layer=t.layer - 1),
        dict(log="x"),
        "plots.lines: layer = 0: must be above 0 on a log axis",
    ),
}


@pytest.mark.parametrize(("change", "options", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_drawn_is_refused_in_one_line(change, options, message):
    every = dict(by="arm", xlabel="layer", ylabel="Gini") | options
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        plots.lines(change(two_arms()), "layer", "gini", **every)
    assert "\n" not in str(error.value)


def test_absent_data_are_said():
    options = dict(by="arm", panel="domain", xlabel="layer", ylabel="Gini")
    known = two_arms().assign(domain="known")
    absent = two_arms().assign(domain="absent", gini=np.nan)
    fig = plots.lines(pd.concat([known, absent]), "layer", "gini", **options)
    texts = [[text.get_text() for text in ax.texts] for ax in fig.axes]
    assert texts == [[], ["not available"]]
    fig = plots.lines(known.iloc[:0], "layer", "gini", **options)
    assert [text.get_text() for text in fig.axes[0].texts] == ["not available"]


@pytest.mark.parametrize("x", [[4, 16, 64, 256, 1024, 4096], [1, 1.1, 1.25, 1.5, 2], [7]], ids=str)
def test_what_is_written_has_room(x):
    """Ticks do not touch, and the legend stays within the figure, also with long names."""
    names = [f"{'a rather long name ' * (i % 3)}{i}" for i in range(6)]
    rows = [
        dict(p=f"panel {p}", name=name, x=at, y=at) for p in range(3) for name in names for at in x
    ]
    options = dict(by="name", panel="p", log="x", xlabel="x", ylabel="y")
    fig = plots.lines(pd.DataFrame(rows), "x", "y", **options)
    fig.draw_without_rendering()
    for ax in fig.axes:
        boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
        assert boxes and set(ax.get_xticks()) <= set(x)
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    box = fig.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= fig.bbox.x1 and told(fig) == names


def test_columns_below_each_other():
    table = pd.DataFrame(dict(level=[0, 1], a=[1, 2], a_low=[0, 1], a_high=[2, 3], b=[5, 6]))
    found = plots_tables.stacked(table, "us", {"a": "mean", "b": "P50"})
    nan = np.nan
    wanted = pd.DataFrame(
        dict(
            level=[0, 1, 0, 1],
            of=["mean", "mean", "P50", "P50"],
            us=[1, 2, 5, 6],
            us_low=[0, 1, nan, nan],
            us_high=[2, 3, nan, nan],
        )
    )
    pd.testing.assert_frame_equal(found, wanted)


def test_every_pair_of_every_size_and_their_means_are_drawn():
    pairs = pd.DataFrame(dict(parameters_m=[3.7, 3.7, 113.4], gain=[0.05, 0.03, 0.01]))
    sizes = pd.DataFrame(dict(parameters_m=[3.7, 113.4], gain=[0.04, 0.01]))
    fig = plots_synthesis.gains(pairs, sizes.assign(gain_low=0, gain_high=0.06))
    _, every, mean = fig.axes[0].get_lines()
    assert every.get_ydata().tolist() == [0.05, 0.03, 0.01] and every.get_linestyle() != "-"
    assert mean.get_xydata().tolist() == [[3.7, 0.04], [113.4, 0.01]]


FABRICS = ("a", 1.0, 1.0), ("b", 1.001, 2.0), ("c", 0.1, 3.0)


def test_each_way_has_a_row_and_what_is_far_is_told_in_words():
    rows = [("a 1", 0.1, 1.1, True, True), ("b", 0.02, 1.2, False, False), ("c", 0.3, 2.0, True, 0)]
    table = pd.DataFrame(rows, columns=["way", "nats", "rho", "causal", "frontier"])
    table = table.assign(group="g", slowdown=[0.1, 0.02, np.nan])
    fig = plots_synthesis.pareto(table.assign(nats_low=table.nats - 0.01, nats_high=table.nats))
    lost, left, slower = fig.axes
    assert [text.get_text() for text in lost.get_yticklabels()] == ["b", "a", "c"]
    assert [text.get_text() for text in slower.texts] == ["+2%", "+10%", ""]
    assert [(text.get_text(), text.get_position()[1]) for text in lost.texts] == [("0.3 →", 2)]
    fig.draw_without_rendering()
    edge = fig.bbox.x1
    assert all(ax.xaxis.label.get_window_extent().x1 < edge for ax in fig.axes)
    marks = {ax: [m for m in ax.get_lines() if m.get_marker() in "oD"] for ax in (lost, left)}
    seen = {ax: [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks[ax]] for ax in marks}
    assert seen == {lost: [(0.02, 0), (0.1, 1)], left: [(1.2, 0), (1.1, 1), (2.0, 2)]}
    assert [m.get_mfc() == "white" for m in marks[lost]] == [True, False]
    assert marks[lost][1].get_color() != marks[lost][0].get_color()


def test_placements_stand_in_one_order_whatever_comes_first():
    names = ["packed", "in order", "other", "random"]
    table = pd.DataFrame(
        dict(group="g", placement=names, where="no text", rho=[1.1, 1.4, 1.2, 1.5])
    )
    for own in (table, table[::-1]):
        (ax,) = plots_network.placements(own, "rho").axes
        told = [text.get_text() for text in ax.get_yticklabels()]
        assert told == ["random", "in order", "packed", "other"]
    banded = plots_network.placements(table.assign(rho_low=1, rho_high=2), "rho")
    assert "nine in ten draws" in [text.get_text() for text in banded.legends[0].texts]


def test_fabrics_that_are_alike_are_one_line_and_computing_is_one_over_fabrics():
    rows = [(d, f, s * d, d * t, 9.0 * d) for d in (8, 64) for f, s, t in FABRICS]
    columns = ["devices", "fabric", "slowdown", "bound_s", "exact_s"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.assign(slowdown_low=table.slowdown, slowdown_high=table.slowdown)
    left, right = plots_network.scaling(table).axes
    told = [text.get_text() for text in left.get_legend().texts]
    assert told == ["the others, all alike", "c", "95 % interval"]
    bound = next(line for line in right.get_lines() if line.get_linestyle() == "-")
    assert bound.get_ydata().tolist() == [16.0, 128.0]
    left, _ = plots_network.scaling(table[table.fabric != "c"]).axes
    assert left.get_legend().texts[0].get_text() == "all fabrics"
    each = [table[table.fabric == "a"], table[table.fabric == "c"]]
    both = pd.concat([part.assign(fabric=n) for n, part in zip("abcd", each * 2, strict=True)])
    left, right = plots_network.scaling(both.assign(exact_s=np.nan)).axes
    told = [text.get_text() for text in left.get_legend().texts]
    assert told == [f"{a}, {b}" for a, b in (("a", "c"), ("b", "d"))] + ["95 % interval"]
    assert [text.get_text() for text in right.get_legend().texts] == ["bound", "all fabrics"]


def test_a_drawing_does_not_hang_on_digits_that_it_does_not_show():
    drawn = []
    for nudge in (0, 1e-9):
        fig, axes = plots.figure()
        axes[0][0].plot([0, 1], [0, 1], "o-")
        axes[0][0].set_position([0.1, 0.1, 0.8 + nudge, 0.8])
        drawn.append(svg.drawn(fig, "x"))
    assert drawn[0] == drawn[1] and 'clip-path="url(#x-h' in drawn[0]
    ids = re.findall(r'id="([^"]*)"', drawn[0])
    assert len(set(ids)) == len(ids) and {*re.findall(r"[#(]#?(x-[\w.-]+)", drawn[0])} <= {*ids}
