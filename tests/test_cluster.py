"""The cluster that is asked about: by name, by file, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from lib.commands import asked
from lib.network import cluster, exchange, fabric, fluid, layers, step
from lib.paper import chapters, rules

IDEAL = step.published()
NODES = dict(nodes=4, devices=2, inside_bytes_per_s="450e9", nic_bytes_per_s=1e9)
RING = {
    "devices": 3,
    "links": {"a": 1e9, "b": {"bytes_per_s": 2e9, "latency_s": 1e-6}, "c": 1e9},
    "routes": {
        **{"0-1": ["a"], "1-2": ["b"], "2-0": ["c"]},
        **{"1-0": ["b", "c"], "2-1": ["c", "a"], "0-2": ["a", "b"]},
    },
}


def written(folder, content) -> str:
    path = folder / "mine.yml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_default_is_what_the_published_rates_make():
    place = cluster.named("H100")
    found, wanted = cluster.clusters(place, IDEAL), fabric.clusters(450e9, 50e9, 8)
    assert list(found) == list(wanted)
    for name, make in found.items():
        np.testing.assert_allclose(
            make(16).capacity_bytes_per_s, wanted[name](16).capacity_bytes_per_s
        )
    both = cluster.fabrics(place, 8)
    np.testing.assert_array_equal(
        both["nodes on a network"].capacity_bytes_per_s, fabric.nodes(8, 4).capacity_bytes_per_s
    )
    assert place.sizes([8, 4096]) == [8, 4096] and place.size(64) == 64


@pytest.mark.parametrize("given", [dict(nic_bytes_per_s=1e9), dict(per_node=2)])
def test_a_slower_card_and_smaller_nodes_change_the_layer(given):
    """Sixteen devices: the layer of the cluster itself, its links inside as they were."""
    olmoe = step.models()["OLMoE-1B-7B"]
    study = layers.Study([olmoe], [16], [256], [0.4], seeds=2)
    times = []
    for more in ({}, given):
        made = cluster.clusters(cluster.named("H100", **more), IDEAL)
        own = layers.draws(study, made, IDEAL).set_index("fabric").s
        _, itself, _ = cluster.told(made)
        times.append((own["NVLink throughout"].mean(), own[itself].mean()))
    assert times[0][0] == times[1][0] and times[1][1] > 1.2 * times[0][1]


def test_nodes_of_a_file(tmp_path):
    place = cluster.named(written(tmp_path, NODES | dict(oversubscription=2)))
    assert (place.name, place.most, place.per_node) == ("mine", 8, 2)
    assert place.sizes([4, 8, 64]) == [4, 8] and place.sizes([64]) == [8] and place.size(64) == 8
    made = cluster.clusters(place, IDEAL)
    assert list(made)[1] == "mine" and cluster.told(made) == tuple(list(made)[:3])
    sent = np.zeros((8, 8))
    sent[:2, 2:4] = 1e9 / 4  # each of two devices sends half a second's worth, half of it shared
    assert fluid.bottleneck_bound_s(sent, made["mine"](8)) == pytest.approx(1)
    # links inside reach the share that the machine's do
    slow = step.Machine("measured", {"wire_bytes_per_s": 225e9}, {}, {}, 50e9)
    inside = next(iter(cluster.clusters(place, slow).values()))(2)
    assert inside.capacity_bytes_per_s.tolist() == [225e9] * 4


def test_links_and_routes_of_a_file(tmp_path):
    place = cluster.named(written(tmp_path, RING))
    made = cluster.clusters(place, IDEAL)
    assert place.sizes([8, 64]) == [3] and cluster.told(made) == ("mine",) * 3
    sent = np.zeros((3, 3))
    sent[2, 1] = 1e9  # over c and a
    assert fluid.bottleneck_bound_s(sent, made["mine"](3)) == pytest.approx(1)
    assert list(cluster.fabrics(place, 3)) == ["mine"]


@pytest.mark.parametrize(
    "change, line",
    [
        (dict(nodes=None), "nodes = None: must be a whole number from 1 to 4096"),
        (dict(nic_bytes_per_s=0), "nic_bytes_per_s = 0: must be a finite number > 0"),
        (dict(nic_bytes_per_s="fast"), "nic_bytes_per_s = fast: must be a finite number > 0"),
        (dict(between="air"), "between = 'air': must be tree or rail"),
        (dict(oversubscription=0.5), "oversubscription = 0.5: must be a finite number ≥ 1"),
        (dict(speed=3), "speed: must be one of nodes, devices, inside_bytes_per_s"),
        (dict(links={}), "lacks routes: must have devices, links, routes"),
    ],
)
def test_bad_nodes_are_refused(tmp_path, change, line):
    with pytest.raises(ValueError, match=f"^fabric: .*mine.yml: {re.escape(line)}"):
        cluster.named(written(tmp_path, NODES | change))


@pytest.mark.parametrize(
    "change, line",
    [
        (dict(devices=4), "routes: 0-3: None: must be a list of links"),
        (dict(devices=2), "routes: 0-2: must be a pair of different devices from 0 to 1"),
        (dict(links={"a": 1e9}), "routes: 0-2: ['a', 'b']: must be a list of links"),
        (dict(links=RING["links"] | {"a": -1}), "links: a = -1: must be a finite number > 0"),
        (dict(nodes=2), "nodes: must be one of devices, links, routes, name"),
    ],
)
def test_bad_links_are_refused(tmp_path, change, line):
    with pytest.raises(ValueError, match=f"^fabric: .*mine.yml: {re.escape(line)}"):
        cluster.named(written(tmp_path, RING | change))


def test_names_that_are_neither_are_refused(tmp_path):
    with pytest.raises(ValueError, match="^fabric = 'H99': must be one of H100, .* a .yml file$"):
        cluster.named("H99")
    with pytest.raises(ValueError, match="none.yml: cannot be read: No such file or directory$"):
        cluster.named(str(tmp_path / "none.yml"))
    with pytest.raises(ValueError, match="has links and routes: numbers of devices in a node"):
        cluster.named(written(tmp_path, RING), per_node=2)
    (tmp_path / "list.yml").write_text("- 1\n")
    with pytest.raises(ValueError, match="list.yml: must hold names with values$"):
        cluster.named(str(tmp_path / "list.yml"))


@pytest.mark.parametrize(
    "given, line",
    [
        (dict(fabric="H99"), "04_network: fabric = 'H99': must be one of"),
        (dict(devices_per_node=3), "04_network: fabric.nodes: devices = 8: must be a multiple"),
        (dict(model="nowhere"), "04_network: model = 'nowhere': must be 'embedded',"),
        (dict(counts="nowhere.csv"), "04_network: counts = 'nowhere.csv': must be 'published',"),
    ],
)
def test_the_chapter_refuses_before_any_work(given, line):
    (found,) = rules.refused("04_network", given)
    assert found.startswith(line)


def page_files() -> list[dict]:
    text = (ROOT / "book/cluster.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("number", [0, 1])
def test_the_files_of_the_page_are_taken_by_the_chapter(number, tmp_path):
    content = page_files()[number]
    own = chapters.defaults("04_network") | dict(
        fabric=written(tmp_path, content), num_experts=16, step_seeds=2, seeds=20
    )
    assert rules.refused("04_network", own) == []
    space = type("Parameters", (), own)
    place = asked.place(space)
    study = asked.routed(space, place)
    nets = cluster.fabrics(place, study.devices)
    assert len(exchange.at_levels(study, [0.0], nets)) == 20 * len(nets)
    assert asked.files(space)[0] == Path(own["fabric"])
