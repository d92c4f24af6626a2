"""What careless users give, a row each: kind, what is given, words of the one line that refuses it.

A row is tried in an empty folder: those of the command line as they are typed, those of files by
the function that reads them first.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from conftest import ROOT
from transformers import OlmoeForCausalLM

from lib.balance import checkpoint
from lib.commands import imported, line
from lib.measure import records
from lib.model import corpus, load, texts
from lib.network import cluster, fabric
from lib.paper import build, cli, runner
from lib.routing import adapter, observe

line.add(cli.app)
WORK = Path("w")  # stands in a row for the folder in which it is tried


@dataclass(frozen=True)
class Case:
    """What is given, as the case table tells it; part of the line; and what reads it."""

    kind: str
    given: str
    words: str
    reads: Callable[[Path], object]


def typed(*arguments: str) -> str:
    """What ``python -m lib`` says to these arguments, up to where it would begin to compute."""

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("nothing was refused")

    told, kept = io.StringIO(), (sys.argv, runner.execute, build.book)
    sys.argv, runner.execute, build.book = ["lib", *arguments], begun, begun
    code: object = 0
    try:
        with redirect_stderr(told), redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv, runner.execute, build.book = kept
        with suppress(OSError):  # the folder of a run that was let in
            shutil.rmtree(ROOT / "_build/runs/bad-input")
    return told.getvalue().strip() if code == 2 else f"exit code {code}: {told.getvalue()}"


def said(case: Case, folder: Path) -> str:
    """The line that refuses a case; "accepted" if nothing does."""
    try:
        told = case.reads(folder)
    except Exception as error:
        if not isinstance(error, ValueError | OSError | RuntimeError):
            return traceback.format_exc()
        return cli.line_of(error)
    return told if isinstance(told, str) and told else "accepted"


def parameters() -> Iterator[Case]:
    for given, words in {
        "step_levels=[0.99]": "below the highest level",
        "imbalance_levels=[0.0, 1.5]": "must be a list",
        "imbalance_levels=[0.0, 0.95]": "level = 0.95: must be from 0 to below 0.9375",
        "step_levels=[]": "must be a list; each item another one that must be",
        "step_levels=[0.3, 0.3]": "each item another one",
        "expert_parallel=[3, 7]": "one must divide the experts",
        "num_tokens=1": "must be a whole number from 16",
        "scale_devices=[9]": "a multiple of 8",
        "scale_devices=[8, 8]": "each item another one",
        'models=["X"]': "must be one of OLMoE-1B-7B",
        "top_k=33": "must be from 1 to num_experts",
        "gammas=[1.0, 1.0]": "each item another one",
        'coefficients={"none": [0.0]}': "must map each loss",
        'coefficients={"none": [0.0], "none": [1.0]}': "must be a dict",
        'coefficients={"none": [0.0], "switch": [1e400]}': "must be a finite number",
        f"seed={2**70}": "must be a whole number from 0 to 1048576",
        "seed=__import__('os')": "must be a number, like 0",
        "seed=" + "9" * 5000: "must be a number, like 0",
        "training_seeds=0": "must be a whole number from 1",
        "equivalence_margin=nan": "must be a number",
        "text=https://example.org/x": "a path that exists",
        "text=nowhere.jsonl": "a path that exists",
        "text=\ud800": "a path that exists",
        "model=/nowhere": "a path that exists",
        "model=https://example.org/model": "a path that exists",
        "trace=nowhere.npz": "must be 'auto', a path that exists",
        "counts=nowhere.csv": "must be 'published', a path that exists",
        "corpus_source=nowhere": "must be 'auto', a path that exists",
        "measured=nowhere": "must be 'auto', a path that exists",
        "device=tpu": "must be one of auto, cpu, cuda",
        "deepep_fitted=[8, 8]": "each item another one",
        "num_experst=64": "no chapter has this parameter (did you mean num_experts?)",
        "num_experts": "must be name=value",
        "=3": "must be name=value",
        "run_dir=x": "no chapter has this parameter",
    }.items():
        yield Case("parameters", f"-p {given[:60]}", words, _typed("-p", given))


def fabrics() -> Iterator[Case]:
    for given, words in {
        "num_devices=3": "experts must be a multiple of devices",
        "num_devices=1": "must be a whole number from 2",
        "num_devices=1048576": "must be a whole number from 2 to 1024",
        "devices_per_node=3": "must be a multiple of per_node = 3",
        "devices_per_node=-1": "must be a whole number from 0",
        "nvlink_bytes_per_s=-1": "must be a finite number from 0",
        "nic_bytes_per_s=-1": "must be a finite number from 0",
        "nic_bytes_per_s=1e400": "must be a finite number from 0",
        "bytes_per_element=0": "must be a finite number from 0.125",
        "constants=guess": "must be one of measured, published",
    }.items():
        yield Case("fabrics", f"-p {given}", words, _typed("-p", given))
    ring = "devices: 2\nlinks: {a: 1e9, b: 1e9}\nroutes: {0-1: [a], 1-0: [b]}\n"
    for given, words, content in (
        ("a name twice", "nodes: stands twice", NODED + "nodes: 2\n"),
        ("a rate that is true", "must be a finite number > 0", NODED.replace("50e9", "true")),
        ("a latency of 1e300", "must be a finite number ≥ 0 and", NODED + "latency_s: 1e300\n"),
        ("a day that is none", "cannot be read: month", NODED + "latency_s: 2026-13-45\n"),
        ("nested without end", "cannot be read: maximum", "[" * 5000),
        ("a misspelt field of a link", "latncy_s: must be", ring.replace("1e9", "{latncy_s: 1}")),
        ("one route twice", "a name of their own", ring.replace("0-1: [a]", "0-1: [a], 0 -1: [a]")),
    ):
        yield Case("fabrics", f".yml: {given}", words, _fabric(content))
    yield Case("fabrics", "a machine that is none", "must be one of", _preset("no machine", 8))
    yield Case("fabrics", "nodes that are not full", "multiple of per_node", _preset("h100", 12))


NODED = "nodes: 2\ndevices: 8\ninside_bytes_per_s: 400e9\nnic_bytes_per_s: 50e9\n"


def _fabric(content: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        (folder / "own.yml").write_text(content)
        return cluster.read(folder / "own.yml")

    return read


def _preset(name: str, devices: int) -> Callable[[Path], object]:
    names = [row.split(",")[0] for row in fabric.PRESETS.read_text().splitlines()[1:]]
    own = next((known for known in names if name in known.lower()), name)
    return lambda _: fabric.preset(own, devices)


def _typed(*more: str) -> Callable[[Path], object]:
    return lambda folder: typed(
        "run", "--name", "bad-input", *(part.replace("w/", f"{folder}/") for part in more)
    )


def params_files() -> Iterator[Case]:
    for name, content, words in (
        ("a name twice", b"seeds: 30\nseeds: 40\n", "line 2: seeds stands there twice"),
        (
            "a name twice within",
            b"coefficients: {none: [0.0], none: [1]}",
            "none stands there twice",
        ),
        ("a Python tag", b"seeds: !!python/object/apply:os.system ['true']", "holds the tag"),
        ("a tag", b"seeds: !x 3\n", "line 1: holds the tag !x"),
        ("a tab", b"seeds:\t30\n", "cannot start any token"),
        ("an anchor", b"gammas: &x [1.0]\nbias_scales: *x\n", "holds the anchor or alias x"),
        ("a merge key", b"<<: {seeds: 30}\n", "<<: no chapter has this parameter"),
        ("bytes of zero", b"\x00\x01\x02", "special characters are not allowed"),
        ("no UTF-8", b"\xff\xfe s", "byte 0 is not UTF-8"),
        ("two documents", b"seeds: 30\n---\nseeds: 40\n", "found another document"),
        ("a date", b"seeds: 2026-01-01\n", "seeds = '2026-01-01': must be a whole number"),
        ("minutes", b"seeds: 1:30\n", "seeds = '1:30': must be a whole number"),
        ("yes", b"overlap: yes\n", "overlap = 'yes': must be True or False"),
        ("nothing", b"seeds:\n", "seeds = None: must be a whole number"),
        ("infinity", b"seeds: .inf\n", "seeds = inf: must be a whole number"),
        ("a name that is a number", b"1: 2\n", "the name 1 is no text"),
        ("a list", b"- 1\n", "holds a list: must be names with values"),
        ("nested without end", b"[" * 90_000, "nested too deeply"),
        ("a long file", b"x" * 1_000_000, "is longer than 100000 bytes"),
        ("a misspelt name", b"num_experst: 64\n", "(did you mean num_experts?)"),
    ):
        yield Case("params files", name, words, _params(content))
    yield Case("params files", "a folder", "no such file", _typed("--params", "w/"))
    yield Case("params files", "a name too long", "no such file", _typed("--params", "x" * 300))


def _params(content: bytes) -> Callable[[Path], object]:
    def reads(folder: Path) -> str:
        (folder / "p.yml").write_bytes(content)
        return typed("run", "--name", "bad-input", "--params", str(folder / "p.yml"))

    return reads


def run_names() -> Iterator[Case]:
    letters = "must begin with a letter, digit or '<'"
    for name in (
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "-x",
        " x",
        "$HOME",
        "a\nb",
        "a\0b",
        "a'b",
        "\ud800",
    ):
        words = "--name '-x'" if name == "-x" else letters
        yield Case("run names", repr(name), words, _run(name))
    for name in ("x" * 101, "x" * 256, "é" * 51):
        yield Case("run names", f"{len(name)} letters", "must have at most 100 bytes", _run(name))
    shown = "the published run is shown, not computed"
    yield Case("run names", "'reference' with a parameter", shown, _run("reference"))


def _run(name: str) -> Callable[[Path], object]:
    return lambda _: typed("run", f"--name={name}", "--only", "04", "-p", "seeds=30")


def flags() -> Iterator[Case]:
    for given, words in {
        "frobnicate": "No such command",
        "run --frob": "No such option",
        "run --jobs 0": "greater than or equal to 1",
        "run --jobs x": "should be a valid integer",
        "run --only 77": "must be one of 00, 01",
        "run extra": "unexpected extra argument",
        "run -p": "requires an argument",
        "show": "Missing argument",
        "show nothing": "there is none",
        "compare reference": "Missing argument",
        "compare reference nothing": "there is none",
        "clean --all x": "must be given the name of one run, or --all",
        "clean reference": "the published run is part of the repository",
        "publish reference": "is the published run",
        "confirm reference": "is the published run",
        "check --name nothing": "there is none",
        "simulate --num_tokens many": "argument --num_tokens: invalid int value",
        "simulate --levels 3": "unrecognized arguments",
        "place": "the following arguments are required",
        "place x.csv --devices 8 --slots 8 -o o --to nothing": "invalid choice",
        "sweep --params nothing": "no such file",
        "advise nothing --devices 0": "must be from 1 to 4096",
    }.items():
        yield Case("flags", given, words, lambda _, given=given: typed(*given.split()))


def parameters_by_a_slip() -> Iterator[Case]:
    """What is typed nearly right, and places that are no text or never end."""
    for given, words in {
        "num_experts = 64": "(did you mean num_experts?)",
        "num_experts:64": "must be name=value",
        "num_experts=64,32": "must be a whole number from 2",
        "imbalance_levels=[0.0 0.3]": "must be a list, like",
        "imbalance_levels=0.0,0.3": "must be a list; each item",
        "overlap=yes": "must be true or false",
        "batches=1e3": "must be a whole number from 20",
        "nic_bytes_per_s=50GB": "must be a number, like",
        "device=cuda:0": "must be one of auto, cpu, cuda",
        "text=": "a path that exists",
        "text=/dev/zero": "a path that exists",
        "text=/": "a folder of at most 50000",
        "text=w/pipe": "a path that exists",
        "model=w/empty": "a folder with config.json",
        "model=w/note.txt": "a folder with config.json",
        "corpus_source=w/note.txt": "that `make corpus` wrote",
        "counts=w/semicolons.csv": "lacks the column expert",
        "model=w/untrained": "the folder has no weights",
        "text=w/rows.jsonl": "must be an object with 'text', has 'body'",
        "trace=w/note.txt": "cannot be read as a recording",
        "trace=w/counts.csv": "cannot be read as a recording",
        "corpus_source=w/foreign.xz": "that `make corpus` wrote",
        "measured=w/measured": "records.load: m/exchange.csv.xz: must be",
        "nodes_fitted=[7]": "nodes_fitted = [7]: must be at least 1 of [8, 16, 32, 64], not all",
        "deepep_fitted=[8]": "deepep_fitted = [8]: must be at least 4 of",
        "normal_fitted=[8, 16, 32, 64]": "at least 1 of [8, 16, 32, 64], not all",
    }.items():
        yield Case("parameters by a slip", f"-p {given}", words, _there("run", "-p", given))


def commands() -> Iterator[Case]:
    """The commands beside `run`, each in a folder that holds `_put`."""
    counts = "w/counts.csv --experts 8 --top-k 2"
    place, advise = f"place {counts} --devices 2 --slots 4", f"advise {counts[:12]} --top-k 2"
    for given, words in {
        f"{place} -o w/counts.csv": "must be another file than what is read",
        f"{place} -o w/none/o.csv": "its folder must exist",
        f"{place} -o w/empty": "must be a file, is a folder",
        f"{place} -o w/o.csv --shape none": "must be one of OLMoE-1B-7B",
        f"{place} -o w/o.csv --tokens 0": "must be from 1",
        f"{place} -o w/o.csv --layers 1": "must be above layer 1",
        f"{place} -o w/o.csv --on w/none.csv": "cannot be read as counts",
        "place w/pipe --devices 2 --slots 4 -o w/o.csv": "must begin with a letter",
        "place w/note.txt --devices 2 --slots 4 -o w/o.csv": "cannot be read as a recording",
        f"{advise} --html w/none/x.html": "its folder must exist",
        f"{advise} --html w/counts.csv": "must be another file than what is read",
        f"{advise} --html w/x.html --shape none": "must be one of OLMoE-1B-7B",
        f"{advise} --html w/x.html --enough nan": "must be from 0 to below 1",
        f"{advise} --html w/x.html --devices 3": "must be 2 or more and divide 8 experts",
        "advise with --html w/x.html --text w/none": "a path that exists",
        "affected none": "a path that exists",
        "affected with --documents -1": "must be a whole number from 2",
        "affected with --tokens 0": "must be a whole number from 16",
        "affected with --dtype int8": "must be one of auto, float32",
        "affected with --device gpu": "must be one of auto, cpu, cuda",
        "affected with --text w/pipe": "a path that exists",
        "sweep --params w/grid.yml --jobs 0": "must be 1 or more",
        "sweep --params w/nothing.yml": "must name a parameter with its values",
        "sweep --params w/scalar.yml": "must be a list of values",
        "sweep --params w/grid.yml --only 04 --value slowdown_top": "must be NN.name",
        "sweep --params w/grid.yml --only 04 --value 05.x": "must be NN.name, NN one of 01, 04",
        "simulate --output w/note.txt": "must be a folder, is a file",
        "simulate --output w/o --imbalance_levels 0.0 0.0": "each item another one",
        "simulate --output w/o --imbalance_levels 0.0,0.3": "invalid float value",
        "times --name none": "there is none",
        "run --jobs 100000000": "less than or equal to 1024",
        "run --profile none": "must be a folder with a config.yaml",
        "run num_experts=64": "unexpected extra argument",
        "run --profile w/unknown": "config.yaml: frob: must be an option of Snakemake",
        "run --profile w/executor": "executor: 'no such': must be the name of a plugin",
        "run --profile w/deep": "config.yaml: must be YAML",
        "run --profile w/listed": "must be options of Snakemake with their values",
        "run -p known_shape=Mixtral-8x7B -p known_level=0.8": "from 0 to below 0.75",
        "advise w/object.json": "cannot be read as counts",
        "advise without --devices 3": "must be 2 or more and divide 16 experts",
        f"{place.replace('--experts 8', '--experts 9')} -o w/o.csv": "--experts = 9: must be 8",
        "place with --devices 2 --slots 16 -o w/o.csv": "is a model: must be a recording",
        "simulate --output w/o --bytes_per_element 0.1": "must be a finite number from 0.125",
    }.items():
        yield Case("commands", given, words, _there(*given.split()))


def _put(folder: Path) -> None:
    """What the rows of `_there` name."""
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    loads = "".join(f"{layer},{e},{e + 1},8\n" for layer in range(2) for e in range(8))
    (folder / "counts.csv").write_text(f"layer,expert,count,experts\n{loads}")
    (folder / "semicolons.csv").write_text("layer;expert;count\n0;0;1\n")
    (folder / "note.txt").write_text("a note\n")
    (folder / "grid.yml").write_text("num_experts: [32, 64]\n")
    (folder / "scalar.yml").write_text("num_experts: 64\n")
    (folder / "nothing.yml").write_text("# nothing\n")
    (folder / "object.json").write_text('{"a": 1}\n')
    (folder / "rows.jsonl").write_text('{"body": "one two"}\n')
    (folder / "foreign.xz").write_bytes(lzma.compress(b"hello\n"))
    (folder / "measured/m").mkdir(parents=True)
    (folder / "measured/m/exchange.csv.xz").write_bytes(b"hello")
    shutil.copytree(_model(), folder / "untrained", ignore=shutil.ignore_patterns("*.safetensors"))
    for name, content in PROFILES.items():
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(content)


PROFILES = {
    "unknown": "frob: 3\n",
    "executor": "executor: no such\n",
    "deep": "[" * 5000,
    "listed": "- 3\n",
}


def _there(*words: str) -> Callable[[Path], object]:
    def reads(folder: Path) -> str:
        _put(folder)
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        name = ["--name", "bad-input"] if words[0] == "run" else []
        told = typed(*(word.replace("w/", f"{folder}/") for word in (*words, *name)))
        after = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        return told if after == before else f"something was written: {told}"

    return reads


@cache
def _model() -> Path:
    """A small model in a folder of its own."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_experts=8)
    folder = Path(mkdtemp()) / "model"
    load.save(OlmoeForCausalLM(load.config(**sizes)).eval(), folder)
    load.tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _altered(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Opens the small model after something of it was changed, and routes a text by it."""

    def reads(folder: Path) -> None:
        own = folder / "model"
        shutil.copytree(_model(), own)
        change(own)
        net, tokenizer = load.open(str(own))
        adapter.layers(net)
        (folder / "t.txt").write_text("one two three")
        found = texts.chosen(str(folder / "t.txt"), 2, field="text", split="test", part="whole")
        observe.trace(net, corpus.encode(found, tokenizer, 8), name="model")

    return reads


def _file(name: str, content: bytes) -> Callable[[Path], object]:
    return _altered(lambda folder: (folder / name).write_bytes(content))


def _config(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        own = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(own))

    return _altered(change)


ROPE = {"rope_type": "x", "rope_theta": 1e4}


class Calls:
    """What a pickle may do: call anything."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(__file__).with_name("called"),)


def models() -> Iterator[Case]:
    for given, words, reads in (
        ("config.json of no bytes", "cannot be opened", _file("config.json", b"")),
        ("config.json is a list", "cannot be opened", _file("config.json", b"[]")),
        ("of an unknown kind", "cannot be opened", _config(model_type="nothing")),
        ("a size in words", "cannot be opened", _config(hidden_size="wide")),
        ("another width", "of another shape", _config(hidden_size=64)),
        ("more experts than weights", "of another shape", _config(num_experts=16)),
        ("more layers than weights", "weights missing", _config(num_hidden_layers=3)),
        ("fewer layers than weights", "not of this model", _config(num_hidden_layers=1)),
        ("more chosen than there are", "must", _config(num_experts_per_tok=9)),
        ("no heads", "num_attention_heads = 0: must be", _config(num_attention_heads=0)),
        ("heads that share no keys", "must divide 4", _config(num_key_value_heads=3)),
        ("no tokens", "vocab_size = 0: must be at least 1", _config(vocab_size=0)),
        ("an unknown function", "hidden_act = 'gulu': must be", _config(hidden_act="gulu")),
        ("unknown positions", "rope_type = 'x': must be", _config(rope_parameters=ROPE)),
        ("weights cut off", "cannot be opened", _altered(_cut)),
        ("weights that are text", "cannot be opened", _file("model.safetensors", b"hello " * 9)),
        ("weights that are no numbers", "finite", _altered(_nan)),
        ("code of its own", "remote_code", _config(model_type="z", auto_map={"AutoConfig": "c.C"})),
        (
            "bitsandbytes",
            "quantised",
            _config(quantization_config={"quant_method": "bitsandbytes"}),
        ),
        ("weights that are a pickle", "cannot be opened", _altered(_pickled)),
        ("an empty folder", "a folder with config.json", lambda folder: load.open(str(folder))),
        ("an address", "a folder with config.json", lambda _: load.open("https://example.org/x")),
        ("an unknown dtype", "must be one of", lambda _: load.open(str(_model()), dtype="float8")),
    ):
        yield Case("models", given, words, reads)


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def _nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[1]
    tensors[first] = tensors[first] * float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


def _pickled(folder: Path) -> None:
    import pickle

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Calls()))


def tokenizers() -> Iterator[Case]:
    whole = json.loads(load.tokenizer().to_str())
    no_words, other = dict(whole["model"], vocab={}), dict(whole["model"], type="nothing")
    strange = dict(whole["model"], merges=[["zz", "qq"]])
    empty = dict(whole["model"], vocab={"Q": 0}, merges=[])
    beyond = dict(whole["model"], vocab={k: v + 9000 for k, v in whole["model"]["vocab"].items()})
    config, own = "tokenizer_config.json", "tokenizer.json"
    for given, words, reads in (
        ("no bytes", "is no tokenizer", _file(own, b"")),
        ("an empty object", "is no tokenizer", _file(own, b"{}")),
        ("a list", "is no tokenizer", _file(own, b"[]")),
        ("no UTF-8", "is no tokenizer", _file(own, b"\x00\xff\xfe")),
        ("cut off", "is no tokenizer", _file(own, json.dumps(whole).encode()[:2000])),
        ("of an unknown kind", "is no tokenizer", _file(own, _json(whole | {"model": other}))),
        ("without entries", "is no tokenizer", _file(own, _json(whole | {"model": no_words}))),
        ("merges of no entry", "is no tokenizer", _file(own, _json(whole | {"model": strange}))),
        ("makes no token", "0 tokens", _file(own, _json(whole | {"model": empty}))),
        ("its rule is cut off", "must be JSON", _file(config, b"{")),
        ("its rule is a list", "bos_token must be", _file(config, b"[]")),
        ("it begins by a number", "bos_token must be", _file(config, b'{"bos_token": 5}')),
        ("is missing", "0 tokens", _altered(lambda f: (f / own).unlink())),
        ("of another model", "must be below 8192", _file(own, _json(whole | {"model": beyond}))),
    ):
        yield Case("tokenizers", given, words, reads)


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def text() -> Iterator[Case]:
    for name, content, words in (
        ("x.txt", b"\xff\xfe", "byte 0 is not UTF-8"),
        ("x.txt", b" \n", "holds no text"),
        ("x.jsonl", b'{"text": 1}', "'text' is int: must be a text"),
        ("x.jsonl", b'{"txt": "a"}', "must be an object with 'text', has 'txt'"),
        ("x.jsonl", b'{"text": "a"', "is no JSON"),
        ("x.jsonl", b'{"text": "\\ud800"}', "is not UTF-8"),
        ("x.jsonl", b'{"text": "a", "domain": [1]}', "'domain' is list"),
        ("x.json", b"[" * 100_000, "is no JSON"),
        ("x.json", b"5", "must be an object with 'text'"),
        ("x.csv", b"a,b\n1,2\n", "must be an object with 'text'"),
        ("x.csv", b'text\n"a', "unexpected end of data"),
        ("x.tsv", b"text\ttext\na\tb\n", "column 'text' stands there twice"),
        ("x.parquet", b"PAR1", "is not parquet"),
        ("x.txt.gz", gzip.compress(b"hello hello", mtime=0)[:-6], "is not whole gzip"),
    ):
        yield Case("text", f"{name}: {content[:30]!r}", words, _text(name, content))
    for given, words in (
        ("https://example.org/x", "is an address"),
        ("s3://bucket/x", "is an address"),
        ("./nowhere", "no such file or folder"),
    ):
        yield Case("text", given, words, lambda _, given=given: _chosen(given))
    yield Case("text", "an empty folder", "holds no file", lambda folder: _chosen(str(folder)))


def _chosen(place: str) -> list:
    return texts.chosen(place, 4, field="text", split="test", part="whole")


def _text(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (
        (folder / name).write_bytes(content),
        _chosen(str(folder / name)),
    )


TRACE = dict(
    expert_index=np.array([[[0, 1], [1, 2]]]),
    **{name: np.array([0, 0]) for name in ("document", "position", "domain", "token")},
    cluster=np.array([0]),
    domains=np.array(["d"]),
    clusters=np.array(["c"]),
    experts=4,
    model="m",
)


def traces() -> Iterator[Case]:
    for given, words, changes in (
        ("an expert beyond the last", "must name experts from 0 to 1", dict(experts=2)),
        ("as many experts as a number", "experts from 0 to 1", dict(experts=2)),
        (
            "an expert below 0",
            "must name experts",
            dict(expert_index=np.array([[[0, -1], [1, 2]]])),
        ),
        ("an expert twice", "different experts", dict(expert_index=np.array([[[1, 1], [1, 2]]]))),
        ("experts in fractions", "whole numbers", dict(expert_index=TRACE["expert_index"] / 1)),
        ("no layers", "must be whole numbers [layers", dict(expert_index=np.array([[0, 1]]))),
        ("a document that is none", "must be below 1", dict(document=np.array([0, 7]))),
        ("fewer tokens than routes", "must be [2] whole numbers", dict(token=np.array([5]))),
        ("a cluster that is none", "must be below 1", dict(cluster=np.array([3]))),
        ("no document", "must be [0] whole numbers", dict(cluster=np.zeros(0, int))),
        ("the number of experts in words", "is not a trace", dict(experts="many")),
        ("two numbers of experts", "is not a trace", dict(experts=np.array([1, 2]))),
        ("10¹² experts", "must be from 1 to 65536", dict(experts=10**12)),
        ("objects", "is no .npz of plain arrays", dict(domains=np.array([{1: 2}], object))),
    ):
        yield Case("traces", given, words, _trace(**changes))
    for given, content in (
        ("no bytes", b""),
        ("a table", b"a,b\n1,2\n"),
        ("a pickle", b"\x80\x04N."),
    ):
        yield Case("traces", given, "is not a trace", _routes("t.npz", content))
    yield Case(
        "traces", "counts alone", "routes of every token", _routes("t.json", b"[[1,2],[3,4]]")
    )
    yield Case("traces", "is missing", "is not a trace", lambda f: imported.routes(f / "t.npz"))


def _trace(**changes: object) -> Callable[[Path], object]:
    return lambda folder: (
        np.savez(folder / "t.npz", **(TRACE | changes)),
        imported.routes(folder / "t.npz"),
    )


def _routes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda f: ((f / name).write_bytes(content), imported.routes(f / name))


def counts() -> Iterator[Case]:
    head = "layer,expert,count\n"
    for given, words, content in (
        ("a column is missing", "lacks the column expert", "layer,count\n0,1\n"),
        (
            "a column twice",
            "column count stands there twice",
            "layer,expert,count,count\n0,0,1,1\n",
        ),
        ("no number", "must be whole", head + "0,0,nan\n"),
        ("below 0", "must be whole", head + "0,0,-1\n"),
        ("shares", "must be whole", head + "0,0,0.5\n0,1,0.5\n"),
        ("words", "must be whole", head + "0,first,1\n"),
        ("10³⁰", "must be whole", head + "0,0,1e30\n"),
        ("expert 10⁹", "must be below 4", head + "0,1000000000,1\n"),
        ("layer 10⁹", "layer = 1000000000: must be at most", head + "1000000000,0,1\n"),
        ("all 0", "counts nothing", head + "0,0,0\n0,1,0\n"),
        ("no rows", "counts nothing", head),
        ("no bytes", "cannot be read as counts", ""),
        ("UTF-16", "cannot be read as counts", head.encode("utf-16")),
    ):
        yield Case("counts", f".csv: {given}", words, _counts("c.csv", content))
    untold = head + "0,0,3\n0,1,2\n"
    for given, words, rest in (
        ("10⁹ experts", "experts = 1000000000: must be at most", "0,0,1,1000000000\n"),
        ("two numbers of experts", "8, 16: must be one number", "0,0,1,8\n1,0,1,16\n"),
    ):
        content = f"layer,expert,count,experts\n{rest}"
        yield Case("counts", f".csv: {given}", words, _counts("c.csv", content, 0))
    yield Case("counts", ".csv: experts untold", "does not tell", _counts("c.csv", untold, 0))
    for given, words, content in (
        ("lists of different lengths", "cannot be read as counts", "[[1,2],[3]]"),
        ("nested without end", "more than the memory does", "[" * 200_000),
        ("records that are an object", "no 0", '{"records": {"a": 1}}'),
        ("no records", "there are none", '{"records": []}'),
        ("expert 10⁹", "must be below 4", '{"records":[{"topk_ids_of_layer":[[[1000000000,2]]]}]}'),
    ):
        yield Case("counts", f".json: {given}", words, _counts("c.json", content, 0))
    for given, words, content in (
        ("NumPy's arrays in torch's file", "plain Python", {"logical_count": np.ones((2, 4))}),
        ("a pickle that calls", "plain Python", {"logical_count": Calls()}),
        ("below 0", "must be whole numbers", {"logical_count": -torch.ones(1, 2, 4)}),
        ("a map to expert 10⁹", "must be below 4096", _dump(torch.tensor([[10**9, 1]]))),
        ("a map that is short", "is not of its map", _dump(torch.tensor([[0]]))),
    ):
        yield Case("counts", f".pt: {given}", words, _counts("c.pt", content))
    objects = np.array([{1: 2}], object)
    yield Case("counts", ".npy: objects", "allow_pickle=False", _counts("c.npy", objects))
    yield Case("counts", ".npy: 10¹² numbers", "than the memory does", _counts("c.npy", _huge()))
    yield Case("counts", "an empty folder", "cannot be read as counts", imported.counts)


def _dump(places: torch.Tensor) -> dict:
    one = {"topk_ids_of_layer": torch.tensor([[[0, 1]]])}
    return {"records": [one], "last_physical_to_logical_map": places}


def _huge() -> bytes:
    head = b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999, 80), }"
    return b"\x93NUMPY\x01\x00\x76\x00" + head.ljust(117) + b"\n"


def _counts(name: str, content: object, experts: int = 4) -> Callable[[Path], object]:
    def reads(folder: Path) -> object:
        file = folder / name
        if isinstance(content, np.ndarray):
            np.save(file, content, allow_pickle=True)
        elif isinstance(content, dict):
            torch.save(content, file)
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return imported.counts(file, experts) is None

    return reads


def measured() -> Iterator[Case]:
    table, facts = "exchange.csv.xz", "exchange.json"
    for given, words, change in (
        ("its provenance is missing", "with its .json", lambda f: (f / facts).unlink()),
        ("its provenance is a list", "must be an object", lambda f: (f / facts).write_text("[]")),
        ("its provenance is cut off", "must be JSON", lambda f: (f / facts).write_text("{")),
        (
            "devices untold",
            "must be a whole number",
            lambda f: (f / facts).write_text('{"date": ""}'),
        ),
        ("of no experiment", "must be one of", lambda f: (f / table).rename(f / "x.csv.xz")),
        (
            "cut off",
            "must be a CSV table packed as xz",
            lambda f: _part(f / table, slice(None, -2000)),
        ),
        (
            "not packed",
            "must be a CSV table packed as xz",
            lambda f: (f / table).write_text("a,b\n1,2\n"),
        ),
        (
            "a column is missing",
            "lacks the column p50_us",
            lambda f: _edit(f / table, "p50", "p51"),
        ),
        ("no row", "has no row", lambda f: _rows(f / table, 1)),
        ("a time in words", "must be above 0", lambda f: _last(f / table, "p50_us", "fast")),
        ("a time below 0", "must be above 0", lambda f: _last(f / table, "p50_us", "-3")),
        ("a time that is none", "must be above 0", lambda f: _last(f / table, "p90_us", "nan")),
    ):
        yield Case("measured", given, words, _measured(change))


def _measured(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def reads(folder: Path) -> None:
        shutil.copytree(ROOT / "data/measured/nvidia-h200-x2", folder / "m/machine")
        change(folder / "m/machine")
        records.load(folder / "m")

    return reads


def _part(file: Path, part: slice) -> None:
    file.write_bytes(file.read_bytes()[part])


def _edit(file: Path, old: str, new: str) -> None:
    text = lzma.decompress(file.read_bytes()).decode()
    file.write_bytes(lzma.compress(text.replace(old, new, 1).encode()))


def _rows(file: Path, count: int) -> None:
    lines = lzma.decompress(file.read_bytes()).decode().splitlines()[:count]
    file.write_bytes(lzma.compress("\n".join(lines).encode()))


def _last(file: Path, column: str, value: str) -> None:
    head, *rows = lzma.decompress(file.read_bytes()).decode().splitlines()
    own = rows[-1].split(",")
    own[head.split(",").index(column)] = value
    file.write_bytes(lzma.compress("\n".join([head, *rows[:-1], ",".join(own)]).encode()))


def checkpoints() -> Iterator[Case]:
    """Those that are damaged are skipped with a line: what is told is that line."""
    facts, other = {"model": "A", "seed": 1}, "is of another run: its "
    for name, value in {"model": "B", "seed": 2, "stride": 4}.items():
        yield Case("checkpoints", f"of another {name}", other + name, _same(facts, name, value))
    whole = "skipped, as it is not whole"
    for given, change in (
        ("cut off", lambda f: _part(f, slice(None, -8))),
        ("no bytes", lambda f: f.write_bytes(b"")),
        ("text", lambda f: f.write_bytes(b"hello " * 99)),
        ("a pickle", lambda f: torch.save({"x": torch.ones(2)}, f)),
        ("without its facts", _untold),
        ("half written", lambda f: f.rename(f.with_suffix(".part"))),
    ):
        yield Case("checkpoints", given, whole, _skipped(change))


def _same(facts: dict, name: str, value: object) -> Callable[[Path], object]:
    return lambda folder: checkpoint.same(folder, facts, {name: value})


def _untold(file: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, file)


def _skipped(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def reads(folder: Path) -> str:
        change(checkpoint.save(folder, 4, {"x": torch.ones(8)}, {"step": 4}))
        told = io.StringIO()
        with redirect_stderr(told):
            found = checkpoint.latest(folder)
        return told.getvalue().strip() if found is None else "accepted"

    return reads


KINDS = (
    *(
        parameters,
        parameters_by_a_slip,
        commands,
        fabrics,
        params_files,
        run_names,
        flags,
        models,
        tokenizers,
        text,
        traces,
    ),
    *(counts, measured, checkpoints),
)


def cases() -> list[Case]:
    """All of them."""
    return [case for kind in KINDS for case in kind()]
