"""Builds this project for `pip install -e .` alone.

It runs from a checkout: notebooks, data and book are read from there, and its package is called
`lib`, which must not lie among other projects' packages.
"""

from setuptools.build_meta import (  # noqa: F401  what pip calls
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

WORDS = (
    "moe-imbalance runs from a checkout: git clone it, then `make book` there (or pip install -e .)"
)


def build_wheel(*_, **__):
    """Refused, as is all that would lead to it."""
    raise SystemExit(WORDS)


build_sdist = get_requires_for_build_wheel = prepare_metadata_for_build_wheel = build_wheel
