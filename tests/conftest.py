"""Shared by all tests: a skip is a failure under REQUIRE_ALL=1, and one tiny run of the whole
pipeline.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
OFFLINE = [  # flags of Chromium
    "--no-sandbox",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# papermill's own command; jsonschema would compile its grammars for 3 seconds
PAPERMILL = [sys.executable, "-c"]
PAPERMILL += [
    """import sys
sys.modules["rfc3987_syntax"] = None
from papermill.__main__ import papermill
papermill()"""
]
TINY = [
    "documents_per_domain=2",
    "tokens_per_document=64",
    "completion_tokens=4",
    "batches=20",
    "batch_tokens=128",
    "null_draws=20",
    "locality_draws=20",
    "shuffles=1",
    "cost_tokens=64",
    "cost_repeats=5",
    "documents=4",
    'strategy_names=["native", "random", "drop", "reroute", "optimal", "biased"]',
    "group_sizes=[16]",
    "prefill_tokens=64",
    "ablation=false",
    "fit_documents=2",
    "fit_steps=20",
    "seeds=20",
    "num_tokens=256",
    'models=["Mixtral-8x7B", "DeepSeek-V3"]',
    "device_tokens=[4, 64]",
    "step_levels=[0.0, 0.3]",
    "step_seeds=8",
    "exact_up_to=8",
    "placement_tokens=32",
    "scale_devices=[8, 16]",
    "scale_exact=8",
    "bootstrap_draws=20",
    "finetune_steps=2",
    "finetune_sequences=2",
    "sequence_tokens=32",
    "training_strides=[4000]",
]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What could not be tested has failed where everything is required."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped under REQUIRE_ALL=1: {report.longrepr}"


def pytest_runtest_logreport(report):
    """A failure is told when it happens: a run that is stopped never comes to its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        reason = getattr(report.longrepr, "reprcrash", None) or str(report.longrepr)[-300:]
        print(f"\nFAILED {report.nodeid} ({report.when}): {reason}", flush=True)


def pytest_collection_modifyitems(items):
    """Files that may take longest come first, so that processes end together; those that need the
    tiny run after the one that makes it has had time to.
    """
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["budgets"]
    items.sort(key=lambda item: -told.get(item.path.stem, told["default"]))


def pytest_terminal_summary(terminalreporter):
    """Note what each file took, for `make times`, of those whose tests were all run."""
    took: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                name = Path(report.nodeid.split("::")[0]).name
                took[name] = took.get(name, 0.0) + report.duration
    config = terminalreporter.config
    if took and not (config.option.keyword or any("::" in name for name in config.args)):
        times = ROOT / "_build/times.json"
        times.parent.mkdir(exist_ok=True)
        before = json.loads(times.read_text()) if times.is_file() else {}
        whole = before | {name: round(seconds, 1) for name, seconds in took.items()}
        times.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    path = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if path is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    return path


@pytest.fixture(scope="module")
def browser(chromium):
    """Headless Chromium that finds nothing beyond this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, args=OFFLINE)
        yield started
        started.close()


def violations(page, rules: str = "") -> list[str]:
    """What axe-core 4.12.1 finds serious on a page, by all rules or those named: contrast, labels,
    order, names of regions.
    """
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    page.add_script_tag(content=script.read_text())
    only = f", runOnly: ['{rules}']" if rules else ""
    asked = f"axe.run(document, {{resultTypes: ['violations']{only}}}).then(r => r.violations)"
    return [
        f"{found['id']}: {found['nodes'][0]['html'][:160]}"
        for found in page.evaluate(asked)
        if found["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="session")
def simgrid(tmp_path_factory):
    """(traffic, fabric) → SimGrid's completion times [devices, devices] in seconds, and its CPU
    seconds.
    """
    import judge

    return partial(judge.judge, judge.compiled(tmp_path_factory.mktemp("simgrid")))


def data_script(name: str):
    """A script that stands beside the data, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run ``python -m lib`` as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "lib", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, worker_id) -> Path:
    """The folder of a whole run, notebooks and book, at a size that takes a minute; made once for
    all processes that run tests.
    """
    place, folder = tmp_path_factory.getbasetemp(), ROOT / "_build/runs/tests"
    made = (place if worker_id == "master" else place.parent) / "tiny_run"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            values = (part for item in TINY for part in ("-p", item))
            done = command("run", "--name", "tests", *values)
            assert done.returncode == 0, done.stderr[-3000:]
            made.touch()
    return folder


@pytest.fixture
def tiny_model():
    """A randomly initialised OLMoE with 3 layers × 8 experts top-2: for mechanics, never for
    results.
    """
    import torch
    from transformers import OlmoeForCausalLM

    from lib.model import load

    torch.manual_seed(0)
    sizes = dict(
        vocab_size=97, hidden_size=32, intermediate_size=16, num_hidden_layers=3, num_experts=8
    )
    return OlmoeForCausalLM(load.config(**sizes)).eval()
