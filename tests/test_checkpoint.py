"""What survives: a killed run goes on bit by bit; parts of a batch and processes change nothing."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import DEVICES, ROOT
from training import KILLS, PLAN, STREAM, model

from lib.balance import checkpoint, losses, train


def in_processes(kind, folder, *options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(ROOT / "tests/training.py"), kind, str(folder), *options],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=600,
    )


@pytest.fixture(scope="module", params=DEVICES)
def killed(tmp_path_factory, request):
    """On a GPU under deterministic settings, in bfloat16 and with steps replayed, as the paper's
    runs are made.
    """
    folder = tmp_path_factory.mktemp("killed")
    done = in_processes("resume", folder, request.param)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stderr


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(killed, name):
    folder, _ = killed
    assert json.loads((folder / "codes.json").read_text())[name] == [-9, 0]
    bits, expected = (json.loads((folder / f"{n}.json").read_text()) for n in (name, "unbroken"))
    assert expected["buffer.selection_bias"] and bits == expected


def test_a_half_written_checkpoint_is_skipped_with_a_line(killed):
    why = "skipped, as it is not whole: the run ended while it was written"
    assert killed[1].count(f"checkpoint: step-00000004.part: {why}") == 1


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    done = in_processes("together", folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", [name for name, row in losses.LOSSES.items() if not row.pooled])
def test_parts_and_processes_change_neither_loss_nor_gradient_nor_bias(steps, name):
    whole = torch.load(steps / f"{name}-1-0.pt")
    assert whole["nats"].dtype == torch.float64
    assert (losses.LOSSES[name].function is not None) == bool(whole["balance"] != 0)
    assert losses.LOSSES[name].moves_bias == bool(whole["bias"].any())
    for other in ("1-1", "2-0", "2-2"):
        parts = torch.load(steps / f"{name}-{other}.pt")
        assert torch.equal(parts["load"], whole["load"]) and torch.equal(
            parts["bias"], whole["bias"]
        )
        for key, value in whole.items():
            torch.testing.assert_close(
                parts[key], value, rtol=1e-9, atol=1e-12, msg=f"{other}: {key}"
            )


def test_the_stock_loss_is_another_one_in_parts(steps):
    """Why it is an arm, and not what the loop offers first: its value changes with the number of
    parts.
    """
    whole, parts = (torch.load(steps / f"stock-1-{micro}.pt")["balance"] for micro in (0, 1))
    assert abs(parts / whole - 1) > 1e-3


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, capsys):
    for step in (2, 4, 6):
        checkpoint.save(tmp_path, step, {"a": torch.full((5,), step)}, {"x": 1})
    assert len(list(tmp_path.iterdir())) == checkpoint.KEEP
    newest = tmp_path / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    tensors, facts = checkpoint.latest(tmp_path)
    assert facts["step"] == 4 and tensors["a"].tolist() == [4] * 5
    told = capsys.readouterr().err
    assert (
        told.startswith("checkpoint: step-00000006.safetensors: skipped, as it is not whole: ")
        and told.count("\n") == 1
    )
    assert checkpoint.latest(tmp_path / "nothing") is None


def test_a_checkpoint_of_another_model_text_or_plan_is_refused_in_one_line(tmp_path):
    plan = replace(PLAN, steps=2, loss="switch")
    options = dict(folder=tmp_path, checkpoint_every=2)
    train.run(model(), STREAM, plan, **options)
    for other, stream, changed, what in (
        (model(1), STREAM, plan, "its start is "),
        (model(), STREAM[::-1].copy(), plan, "its start is "),
        (model(), STREAM, replace(plan, coefficient=0.5), "its coefficient is 0.01, must be 0.5"),
    ):
        with pytest.raises(ValueError, match=what) as error:
            train.run(other, stream, changed, **options)
        assert "is of another run" in str(error.value) and "\n" not in str(error.value)


def test_no_space_left_is_one_line_and_keeps_what_was_there(tmp_path):
    """The temporary file leads to a device that is always full: the kernel's own refusal."""
    checkpoint.save(tmp_path, 2, {"a": torch.zeros(5)}, {})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "step-00000004.part").symlink_to("/dev/full")
    with pytest.raises(
        OSError,
        match=r"step-00000004.safetensors: no space left for \d+.\d MB: earlier checkpoints stay",
    ):
        checkpoint.save(tmp_path, 4, {"a": torch.zeros(50_000)}, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
