"""A chapter is a study first: most of its code computes, the rest shows and publishes."""

import json

import pytest
import share_of_science
from share_of_science import NOTEBOOKS

LEAST = 0.6

SOURCE = """
import numpy as np
from lib import provenance, stats
from lib.network import fluid as f
from lib.paper import plots, values

chapter = values.Chapter("04", p)
t = f.x(1, "any words")
u = np.sort(t) + 1
chapter.figure("x", plots.g(t), t, caption=f"of {f.x(2)} and more")
if f.y(t):
    print(stats.gini(t).round(2))
    chapter.close()
home = provenance.repository()
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_most_of_a_chapter_is_the_study(path):
    source = share_of_science.code(json.loads(path.read_text()))
    assert share_of_science.share(source) >= LEAST, share_of_science.counted(source)


def test_the_counter_counts():
    paper = [
        "chapter=values.Chapter('',p)",
        "chapter.figure('',plots.g(t),t,caption=f'{f.x(2)}')",
        "chapter.close()",
    ]
    science = ["t=f.x(1,'')", "f.y(t)", "print(stats.gini(t).round(2))"]
    wanted = {"science": sum(map(len, science)), "paper": sum(map(len, paper))}
    assert share_of_science.counted(SOURCE) == wanted
    assert share_of_science.share("x = 1") == 0


def test_parameters_are_left_out():
    cells = [
        dict(cell_type="code", metadata={"tags": ["parameters"]}, source=["seed = 0"]),
        dict(cell_type="markdown", metadata={}, source=["words"]),
        dict(cell_type="code", metadata={}, source=["a = 1\n", "b = 2"]),
    ]
    assert share_of_science.code({"cells": cells}) == "a = 1\nb = 2"
