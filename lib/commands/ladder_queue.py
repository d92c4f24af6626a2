"""The queue of models that are trained and evaluated: what each is, and which results are there.

A result is one JSON file; the files are the queue's memory, and what is there is not computed
again.  Results of other settings than those asked for are never mixed with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

from lib.commands import declared
from lib.model import rows
from lib.provenance import nearest, repository

# beside what is declared, for toy runs: held-out documents of a domain (None: all), and what is
# changed in the shape of every model
OWN: dict[str, object] = {"DOCUMENTS_PER_DOMAIN": None, "SHAPE": {}}
# what a result depends on, besides its job
DEPENDS = (
    *OWN,
    *("STEPS", "BATCH_SEQUENCES", "SEQUENCE_TOKENS", "STRIDE", "FRACTIONS", "REPAIRS"),
    *("PROFILE_TOKENS", "SERVING_TOKENS", "SERVING_BATCHES", "PREFIX_TOKENS", "GAMMAS"),
    *("POLICIES", "WEIGHTS", "WINDOW", "WINDOWS_PER_DOMAIN", "FIT_STEPS", "FIT_RATE"),
    *("FIT_SEQUENCES", "BIAS_SCALES", "DECODE_GAMMAS", "TEMPERATURES", "AMONG"),
)
PUBLISHED = repository() / "data" / "reference" / "ladder"  # QUEUE.packed each
MEASURES = ("profile", "prefix", "decode")


@dataclass(frozen=True)
class Job:
    """One model.  start: "" trains it from random weights; an arm of the embedded pair is evaluated
    only; "repairs" and "cheap" train the model without a loss, then repairs of it.  shape: changes
    of the embedded architecture.  learning_rate: its peak, 0 for the declared one.  path: profiled
    at fractions of its training too.
    """

    name: str
    seed: int
    loss: str = "none"
    coefficient: float = 0.0
    start: str = ""
    shape: tuple[tuple[str, int], ...] = ()
    learning_rate: float = 0.0
    measures: tuple[str, ...] = MEASURES
    path: bool = False

    @property
    def file(self) -> str:
        """Names its file."""
        return f"{self.name}_{self.seed}"


def shaped(experts: int, k: int, hidden: int, layers: int, width: int) -> tuple:
    """A shape as `Job` takes it; heads of 64 numbers."""
    return tuple(
        dict(
            num_experts=experts,
            num_experts_per_tok=k,
            hidden_size=hidden,
            num_hidden_layers=layers,
            intermediate_size=width,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
        ).items()
    )


def _pairs(p: SimpleNamespace) -> list[Job]:
    """The embedded pair, then a pair per seed."""
    arms = {"none": ("none", 0.0), "switch": ("switch", p.COEFFICIENT)}
    found = [Job(f"embedded-{arm}", 0, start=arm) for arm in ("without", "with")]
    return found + [
        Job(name, seed, *arm, path=seed == p.SEEDS[0])
        for seed in p.SEEDS
        for name, arm in arms.items()
    ]


def _losses(p: SimpleNamespace) -> list[Job]:
    """Other losses there from the start, two seeds each, as strong beside Switch as in fine-tuning;
    the step of the bias falls to 0.
    """
    arms = dict(entropy=0.03, gini=0.03, max=0.003, bias=0.001, stock=0.01, switch_z=0.01)
    return [
        Job(
            f"start-{loss}",
            seed,
            loss,
            value,
            measures=("profile",) if loss == "bias" else ("profile", "prefix"),
        )
        for seed in p.SEEDS[:2]
        for loss, value in arms.items()
    ]


def _repairs(p: SimpleNamespace) -> list[Job]:
    """The unbalanced model of each seed, trained on with `REPAIRS`."""
    return [Job("repairs", seed, start="repairs", measures=()) for seed in p.SEEDS]


def _cheap(p: SimpleNamespace) -> list[Job]:
    """The same models of the first seeds, repaired by less than training all of them."""
    return [Job("cheap", seed, start="cheap", measures=()) for seed in p.SEEDS[: p.CHEAP_SEEDS]]


def _placed(p: SimpleNamespace) -> list[Job]:
    """The unbalanced model of each seed again, for its routes under a bias that costs little."""
    return [Job("placed", seed, measures=("placed",)) for seed in p.SEEDS]


def _both(
    name: str, p: SimpleNamespace, shape: tuple, rate: float, measures=MEASURES, seeds: int = 1
) -> list[Job]:
    arms = [("none", 0.0), ("switch", p.COEFFICIENT)]
    return [
        Job(f"{name}-{arm[0]}", seed, *arm, shape=shape, learning_rate=rate, measures=own)
        for seed, own in zip(p.SEEDS, (measures, *[("gain",)] * (seeds - 1)), strict=False)
        for arm in arms
    ]


def _shapes(p: SimpleNamespace) -> list[Job]:
    """The same number of parameters (about 17 million) in other numbers of experts."""
    shapes = [*map(tuple, p.TRANSFER_SHAPES), (16, 2)]
    return [
        job
        for experts, k in shapes
        for job in _both(
            f"shape-{experts}-{k}",
            p,
            shaped(experts, k, 384, 6, 1536 // experts),
            0.0,
            ("profile", "prefix"),
        )
    ]


def _sizes(p: SimpleNamespace) -> list[Job]:
    """About 4, 113 and 715 million parameters; of all seeds but the first the gain alone."""
    some, own = p.SIZE_SEEDS, ("profile",)
    more = some + p.FRESH_SEEDS
    found = _both("size-4m", p, shaped(16, 2, 192, 4, 40), 0.0, own, more)
    found += _both("size-113m", p, shaped(32, 4, 512, 8, 256), 1e-3, own, more)
    large = shaped(64, 8, 768, 12, 384)
    return found + _both("size-715m", p, large, 5e-4, own, some)


QUEUES = {
    "pairs": _pairs,
    "losses": _losses,
    "repairs": _repairs,
    "cheap": _cheap,
    "placed": _placed,
    "shapes": _shapes,
    "sizes": _sizes,
}


def numbers(changed: dict | None = None) -> SimpleNamespace:
    """What is declared, with `changed` numbers for toy runs; an unknown name is refused with the
    nearest.
    """
    known = {name: value for name, value in vars(declared).items() if name.isupper()} | OWN
    for name in changed or {}:
        if name not in known:
            raise ValueError(
                f"ladder: {name!r}: must be a declared number{nearest(str(name), known)}"
            )
    return SimpleNamespace(**known | (changed or {}))


def queue(names: Sequence[str], p: SimpleNamespace) -> list[Job]:
    """The jobs of the named queues, one queue after the other, within each the seeds outermost."""
    for name in names:
        if name not in QUEUES:
            hint = nearest(name, QUEUES)
            raise ValueError(f"ladder: queue = {name!r}: must be one of {', '.join(QUEUES)}{hint}")
    return [job for name in names for job in QUEUES[name](p)]


def settings(p: SimpleNamespace) -> dict:
    """What results must have in common to stand beside each other."""
    return json.loads(json.dumps({name: getattr(p, name) for name in DEPENDS}))


def place(folder: Path, p: SimpleNamespace) -> Path:
    """Where the results of these settings stand."""
    text = json.dumps(settings(p), sort_keys=True)
    return folder / hashlib.sha256(text.encode()).hexdigest()[:12]


def read(paths: Iterable[Path], p: SimpleNamespace | None = None) -> dict[str, dict]:
    """Results by the name of their file, from folders and packed files; only those of the settings
    `p`, where given.  Of two of one name the later path counts.
    """
    found: dict[str, dict] = {}
    for path in paths:
        for result in _held(path):
            if p is None or result["settings"] == settings(p):
                found[f"{result['job']['name']}_{result['job']['seed']}"] = result
    return found


def _held(path: Path) -> list[dict]:
    if path.is_dir():
        packed = [result for file in sorted(path.glob("*.packed")) for result in rows.read(file)]
        return packed + [json.loads(file.read_text()) for file in sorted(path.glob("*.json"))]
    return rows.read(path) if path.is_file() else []


def described(job: Job) -> dict:
    """A job as its result names it."""
    return json.loads(json.dumps(asdict(job)))
