"""How `data/corpus.csv.xz` was made: choose the files, split them by cluster, drop near-copies from
the held-out part.

``python data/corpus_manifest.py`` writes it anew from the installed packages (about two minutes).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import lzma
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from lib.model import corpus

# Packages under permissive licences (MIT, BSD, Apache-2.0, PSF, HPND), listed by domain; the glob
# names its files.
DOMAINS = {
    "python": (
        r"\.py$",
        "transformers torch django SQLAlchemy numba accelerate huggingface_hub ipython jedi sphinx "
        "jupyter_server notebook jupyterlab traitlets pydantic fontTools pillow tornado snakemake "
        "jinja2 pygments requests debugpy mypy networkx typer rich pytest nbconvert papermill "
        "seaborn joblib",
    ),
    "mathematics": (r"\.py$", "sympy mpmath"),
    "headers": (r"\.(h|hpp|cuh|c|cpp)$", "torch numpy numba greenlet fontTools debugpy"),
    "prose": (r"\.py$", "scipy pandas scikit-learn numpy matplotlib"),
    "messages": (
        r"\.po$",
        "django sphinx sphinx_book_theme pydata-sphinx-theme sphinxcontrib-applehelp "
        "sphinxcontrib-devhelp sphinxcontrib-htmlhelp sphinxcontrib-qthelp "
        "sphinxcontrib-serializinghtml jupyter_server sphinx-togglebutton",
    ),
}
# Not alike on every platform, generated, or vendored from elsewhere.
SKIP = re.compile(
    r"(^|/)(version|_version|__config__|_distributor_init)\.py$|_pb2\.py$|/_?vendor(ed)?/|/third_party/|bundled/"
    r"|generated|build_settings|cuda_config|/locale/en/|dummy_|(^|/)\.\.(/|$)|(^|/)typeshed/|_data\.py$|^bin/"
)
SMALLEST, LARGEST = 400, 300_000  # bytes of a document
HELD_OUT_SHARE, HELD_OUT_CLUSTERS, LARGEST_CLUSTER = 0.03, 12, 0.02
WINDOW = 5  # lines of a window
COPY_SHARE = 0.10  # share of known windows above which a held-out document is a copy


def cluster(package: str, path: str, domain: str) -> str:
    """The unit that is split and resampled: the model family in transformers, else the subfolder
    within a package.

    A domain made of few packages splits by subfolder; *messages* by application (the folder that
    holds `locale`).
    """
    folders = PurePosixPath(path).parts[1:-1]
    if domain == "messages":
        return f"{package}/{path.split('/locale')[0]}"
    if domain == "python" and package not in ("transformers", "torch", "django"):
        return package
    depth = 4 if domain == "headers" and package == "torch" else 2
    return "/".join((package, *folders[:depth]))


def candidates() -> Iterator[dict]:
    """One row per document of every domain, with its text."""
    for domain, (pattern, packages) in DOMAINS.items():
        for package in packages.split():
            dist = importlib.metadata.distribution(package)
            for file in sorted(dist.files or [], key=str):
                path = file.as_posix()
                if not re.search(pattern, path) or SKIP.search(path):
                    continue
                try:
                    text = corpus.extract(Path(str(dist.locate_file(file))).read_bytes(), domain)
                except (OSError, UnicodeDecodeError, SyntaxError):
                    continue
                size = len(text.encode())
                if SMALLEST <= size <= LARGEST:
                    where = cluster(package, path, domain)
                    version = dist.version.partition("+")[0]
                    yield dict(
                        package=package,
                        version=version,
                        path=path,
                        domain=domain,
                        cluster=where,
                        bytes=size,
                        sha256=corpus.digest(text),
                        text=text,
                    )


def split(rows: pd.DataFrame) -> pd.Series:
    """'train' or 'held-out' per row: in each domain the clusters, in order of a hash of their
    names, are held out until there are enough of them and enough bytes; very large clusters always
    train.
    """
    result = pd.Series("train", index=rows.index)
    for _, part in rows.groupby("domain"):
        size = part.groupby("cluster").bytes.sum()
        order = sorted(size.index, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        chosen: list[str] = []
        for name in order:
            share = size[chosen].sum() / size.sum()
            if share >= HELD_OUT_SHARE and len(chosen) >= HELD_OUT_CLUSTERS:
                break
            if size[name] <= LARGEST_CLUSTER * size.sum():
                chosen.append(name)
        result[part.index[part.cluster.isin(chosen)]] = "held-out"
    return result


def windows(text: str) -> set[int]:
    """Hashes of all runs of five consecutive non-blank lines, white space at their ends removed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {hash(tuple(lines[i : i + WINDOW])) for i in range(max(len(lines) - WINDOW + 1, 1))}


def drop_copies(rows: pd.DataFrame) -> pd.Series:
    """The split with 'copy' for held-out documents that share too many windows with the training
    text, and for documents that stand in the corpus twice.
    """
    known: set[int] = set()
    for text in rows.text[rows.split == "train"]:
        known |= windows(text)
    result = rows.split.copy()
    for index, text in rows.text[rows.split == "held-out"].items():
        own = windows(text)
        if len(own & known) > COPY_SHARE * len(own):
            result[index] = "copy"
    result[rows.duplicated("sha256")] = "copy"
    return result


def build() -> pd.DataFrame:
    """The whole manifest, from the packages installed here."""
    rows = pd.DataFrame(candidates())
    rows["split"] = split(rows)
    rows["split"] = drop_copies(rows)
    return rows.drop(columns="text")[
        ["package", "version", "path", "domain", "cluster", "split", "bytes", "sha256"]
    ]


def write(rows: pd.DataFrame, path: Path) -> None:
    """Write the manifest compressed, the same bytes for the same rows."""
    text = rows.to_csv(index=False).encode()
    temporary = path.with_suffix(".part")
    temporary.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    temporary.rename(path)


if __name__ == "__main__":
    table = build()
    write(table, corpus.MANIFEST)
    print(
        table.groupby(["domain", "split"]).agg(
            documents=("bytes", "size"), bytes=("bytes", "sum"), clusters=("cluster", "nunique")
        )
    )
