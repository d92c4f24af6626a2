"""An operator's path: a recording in each format, the command, a file, and the load it promises."""

import re
import subprocess
import sys
from pathlib import Path

import engine_files
import numpy as np
import pandas as pd
import pytest

from lib.commands import advise, place, placing
from lib.engines import exporting
from lib.network import placement, search, step

INDEX = engine_files.routes()
FORMATS = {**engine_files.ROUTES, **engine_files.COUNTS}


@pytest.mark.parametrize("kind", FORMATS)
def test_from_a_recording_to_a_file(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(placing, "TIMED", 1)
    write, name = FORMATS[kind]
    write(tmp_path / name, INDEX)
    to = list(exporting.WRITERS)[len(kind) % len(exporting.WRITERS)]
    out = tmp_path / "placement"
    line = f"{tmp_path / name} --devices 4 --slots 5 --to {to} --top-k 4 -o {out}"
    place.main(line.split())
    said = capsys.readouterr().out
    assert f"read as {kind.strip()}" in said and "No engine was started" in said
    slots = np.stack([row for _, row in sorted(exporting.read(out, 4).items())][-3:])
    load = engine_files.load(INDEX)
    rho = [
        placement.device_load(own, home, 4).max() / (own.sum() / 4)
        for own, home in zip(load, slots, strict=True)
    ]
    promised = re.search(r"busiest device has ([\d.]+) of the mean \(worst layer ([\d.]+)\)", said)
    assert np.mean(rho) == pytest.approx(float(promised[1]), abs=1e-4)
    assert max(rho) == pytest.approx(float(promised[2]), abs=1e-4)


def golden(path, domain="all", order=1):
    loads = [600, 560, 120, 120, 20, 10, 10, 10][::order]
    about = dict(model="g", experts=8, top_k=2, domain=domain, layer=0, tokens=725)
    frame = pd.DataFrame([about | dict(expert=e, count=c) for e, c in enumerate(loads)])
    frame.to_csv(path, index=False)
    return frame


@pytest.mark.parametrize(("method", "most"), [("greedy", 232), ("better", 205)])
def test_golden_loads_of_a_file(method, most, tmp_path, capsys):
    golden(tmp_path / "g.csv")
    out = tmp_path / "p.csv"
    line = f"{tmp_path / 'g.csv'} --devices 8 --slots 2 --method {method} -o {out}"
    place.main(line.split())
    held = placement.device_load(
        np.array([600, 560, 120, 120, 20, 10, 10, 10.0]), exporting.read(out, 8)[0], 8
    )
    assert held.max() == 232 if method == "greedy" else held.max() <= most
    assert held.sum() == pytest.approx(1450)


def test_it_runs_as_a_command(tmp_path):
    golden(tmp_path / "g.csv")
    line = [sys.executable, "-m", "lib", "place", str(tmp_path / "g.csv"), "--devices", "8"]
    done = subprocess.run(
        [*line, "--slots", "2", "--to", "vllm", "-o", str(tmp_path / "p.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no placement below" in done.stdout and "initial_expert_map_path" in done.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--devices 0 --slots 2", "--devices 0: must be from 1 to 4096"),
        ("--devices 8 --slots 0", "--slots 0: must be from 1"),
        ("--devices 8 --slots 9", "--slots 9: must be from 1 .* to 8"),
        ("--devices 8 --slots 2 --model h", "--model h: must be one of g"),
        ("--devices 8 --slots 2 --tokens 0", "--tokens 0: must be"),
        ("--devices 8 --slots 2 --shape Nothing", "--shape Nothing: must be one of OLMoE"),
    ],
)
def test_refused_in_one_line(more, message, tmp_path):
    golden(tmp_path / "g.csv")
    with pytest.raises(ValueError, match=message) as caught:
        place.main(f"{tmp_path / 'g.csv'} {more} -o {tmp_path / 'p'}".split())
    assert "\n" not in str(caught.value) and not (tmp_path / "p").exists()
    with pytest.raises(ValueError, match="its folder must exist"):
        place.main(f"{tmp_path / 'g.csv'} --devices 8 --slots 2 -o {tmp_path}/no/p".split())
    (tmp_path / "o.csv").write_text(
        (tmp_path / "g.csv").read_text().replace("g,8,2,all,0", "g,8,2,all,5")
    )
    with pytest.raises(ValueError, match="--on: has no layers"):
        place.main(
            f"{tmp_path / 'g.csv'} --devices 8 --slots 2 -o {tmp_path / 'p'} "
            f"--on {tmp_path / 'o.csv'}".split()
        )


def asked(others=None, parts=None):
    load = np.array([[600, 560, 120, 120, 20, 10, 10, 10.0]])
    return placing.Asked(load, 8, 4, parts or {}, others or {})


def test_more_slots_and_other_texts():
    turned = asked().load[:, ::-1]
    table = placing.spares(asked({"turned": turned}), None).set_index("slots")
    assert table.index.tolist() == [1, 2, 3, 4]
    assert (table.ceiling <= table.better + 1e-9).all() and (table.better <= table.greedy).all()
    assert table.better.is_monotonic_decreasing and table.other[2] > table.better[2]
    own = search.better(asked().load[0], 8, 8)
    held = placement.device_load(turned[0], own, 8)
    assert table.other[2] == pytest.approx(held.max() / held.mean())
    both = placing.spares(asked(parts={"a": asked().load, "b": turned}), None).set_index("slots")
    assert both.other[2] == pytest.approx(
        table.other[2], rel=0.02
    )  # each judged on the mirror of its own
    assert "memory_gb" not in table and np.isnan(placing.spares(asked(), None).other).all()


def case():
    load = np.array([[60, 56, 30, 30, 20, 20, 20, 20.0]])
    model = placing.shaped(step.Model("", step.models()["OLMoE-1B-7B"].shape, 0, 0.0), 8, 2, 1)
    net, machine = advise.cluster(4, advise.machine("h200")), advise.machine("h200")
    from lib.commands import advice

    return advice.Case(load, 128, model, net, machine, 512, 1, draws=4)


def test_times_and_when_moving_pays():
    own = case()
    wanted = placing.Asked(own.load, 4, 3, {}, {"turned": own.load[:, ::-1]})
    table = placing.spares(wanted, own).set_index("slots")
    assert table.slowdown[3] < table.slowdown[2]
    assert table.memory_gb.tolist() == pytest.approx([0, 6 * 2048 * 1024 / 1e9])
    moved = placing.moves(wanted, own)
    assert moved.rows_that_pay == 1.5 * own.model.shape.width and moved.tokens_that_pay > 0
    rivals = placing.rivals(wanted, own)
    assert set(rivals.text) == {"own", "turned"} and len(rivals) == 12
    rows = rivals[rivals.rule == "linear programme"]
    assert (rows.slowdown_own > rows.slowdown).all()


def test_how_often_to_refresh():
    own = case()
    wanted = placing.Asked(own.load, 4, 3, {}, {})
    rng = np.random.default_rng(0)
    steady = rng.poisson(1000 * own.load / own.load.sum(), (40, 1, 8))
    halved = placing.halves(wanted, steady)
    np.testing.assert_array_equal(halved.load, steady[:20].sum(0))
    np.testing.assert_array_equal(halved.others["held out"], steady[20:].sum(0))
    table = placing.refreshed(wanted, own, steady).set_index("every")
    assert table.index.tolist() == [0, 1, 2, 4, 8] and table.fetched[0] == 0
    turning = np.stack([np.roll(own.load, 8 * at // 40) for at in range(40)])
    later = placing.refreshed(wanted, own, turning).set_index("every")
    assert later.rho[1] < later.rho[0] and later.tokens_that_pay[1] > 0
    assert np.isinf(table.tokens_that_pay[1]) or (
        table.tokens_that_pay[1] > later.tokens_that_pay[1]
    )


def test_the_page_says_what_works(tmp_path, capsys):
    """The commands of the page "Your cluster", on published counts and on a recording."""
    text = (Path(__file__).parents[1] / "book/cluster.md").read_text()
    lines = re.findall(r"^python -m lib place (.*)$", text, re.MULTILINE)
    assert len(lines) == 2
    engine_files.sglang_per_pass(tmp_path / "recording.pt", INDEX)
    for line in lines:
        words = line.replace("data/", f"{Path(__file__).parents[1]}/data/")
        words = words.replace("recording.pt", str(tmp_path / "recording.pt"))
        place.main(words.replace("placement.json", str(tmp_path / "placement.json")).split())
        assert "read back" in capsys.readouterr().out
    for option in re.findall(r"`(--[a-z-]+)", text.partition("## Load")[0]):
        known = option in place.__doc__ or option.startswith(("--enable", "--expert-dist"))
        assert known or option[2:].replace("-", "_") in vars(place.parsed(words.split()))
