"""What stands in one figure is told apart without seeing all colours: simulated after Machado,
Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency,
2009 (matrices of full severity), distances in CIELAB.
"""

import re
from itertools import combinations

import numpy as np
import pytest
from conftest import ROOT
from matplotlib.colors import to_rgb
from test_figures import each_figure
from test_plots import GROUPS

from lib.paper import plots_style

VISION = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "all": np.eye(3).tolist(),
}
APART = 10.0  # in CIELAB; 2.3 is just noticeable
SHAPES = ["OLMoE-1B-7B", "Mixtral-8x7B", "Qwen3-30B-A3B", "DeepSeek-V3", "gpt-oss-20b"]
FABRICS = [name for name in plots_style.STYLES if name.startswith(("NVLink", "nodes of"))]
PARTS = ["start", "wire", "arithmetic", "order"]
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(colour, vision) -> np.ndarray:
    """A colour in CIELAB (white of D65) as one of these sees it."""
    rgb = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    xyz = np.asarray(XYZ) @ seen / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def near(colours, vision) -> list[tuple]:
    """Pairs of colours that one of these cannot well tell apart."""
    return [
        (a, b)
        for a, b in combinations(colours, 2)
        if np.linalg.norm(lab(a, vision) - lab(b, vision)) < APART
    ]


def test_the_simulation_knows_what_is_known():
    assert lab("white", "all") == pytest.approx([100, 0, 0], abs=0.05)
    assert near(["#FF0000", "#4B7D00"], "all") == [] and near(["#777777", "#7A7A7A"], "all")
    for vision in VISION:  # who sees no colour sees black and white as all do
        assert lab("white", vision)[0] == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "names", [*GROUPS.values(), SHAPES, FABRICS], ids=[*GROUPS, "shapes", "fabrics"]
)
def test_lines_of_one_figure_differ_in_colour_mark_or_dash(names, vision):
    for a, b in combinations(names, 2):
        one, other = plots_style.style(a), plots_style.style(b)
        same = (one.mark, str(one.dash)) == (other.mark, str(other.dash))
        assert not (same and near([one.colour, other.colour], vision)), (a, b)


@pytest.mark.parametrize("vision", VISION)
def test_areas_differ_in_colour(vision):
    """Parts of a bar have neither mark nor dash."""
    assert near([plots_style.style(name).colour for name in PARTS], vision) == []


@pytest.mark.parametrize("vision", VISION)
@each_figure
def test_what_a_legend_names_is_told_apart(draw, table, shown, vision):
    fig = draw(table)
    for legend in fig.legends:
        keys = [key for key in legend.legend_handles if hasattr(key, "get_marker")]
        looks = [
            (key.get_color(), str(key.get_marker()), key.get_linestyle(), key.get_markerfacecolor())
            for key in keys
        ]
        for a, b in combinations(looks, 2):
            alike = a[1:3] == b[1:3] and (a[3] == a[0]) == (b[3] == b[0])
            assert not (alike and near([a[0], b[0]], vision)), (a, b)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_colours_of_drawings_differ(theme, vision):
    style = (ROOT / "book/_static/paper.css").read_text()
    names = ("--paper-blue", "--paper-red", "--paper-green", "--paper-grid")
    colours = [re.findall(rf"{name}: (#[0-9a-f]+)", style)[theme] for name in names]
    assert near(colours, vision) == []
