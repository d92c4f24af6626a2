"""Locality: where groups cancel, where they agree, and the rate of its test."""

import numpy as np
import pytest
import traces

from lib.routing import locality, trace


def test_one_where_domains_cancel_and_zero_where_they_agree():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 30)
    favourite = np.eye(2)[group]
    cancel = rng.poisson(50 * (0.2 + favourite))[:, None, :]
    agree = rng.poisson(50 * (0.2 + np.eye(2)[np.zeros(60, int)]))[:, None, :]
    assert locality.phi(cancel, group) == pytest.approx(1, abs=0.03)
    assert locality.phi(agree, group) == pytest.approx(0, abs=0.03)
    found = locality.tested(cancel, group, np.arange(60) // 3, 199, rng)
    assert found["locality_p"] <= 0.01 and found["locality_low"] > 0.5
    assert locality.tested(agree, group, np.arange(60) // 3, 199, rng)["locality_p"] > 0.01


def test_the_test_holds_its_rate():
    """Clusters with favourites of their own, dealt to two groups at random: no more than the
    nominal rate is rejected.
    """
    rng = np.random.default_rng(2)
    p = []
    for _ in range(120):
        cluster = np.repeat(np.arange(12), 3)
        counts = rng.poisson(20 * rng.dirichlet(np.ones(4), 12)[cluster])[:, None, :]
        group = rng.permutation(np.repeat([0, 1], 6))[cluster]
        p.append(locality.tested(counts, group, cluster, 39, rng)["locality_p"])
    assert 0 <= np.mean(np.array(p) <= 0.05) <= 0.12


def test_the_null_is_that_of_permuted_labels():
    rng = np.random.default_rng(1)
    given = rng.integers(0, 9, (24, 2, 4))
    cluster, group = np.repeat(np.arange(8), 3), np.repeat([0, 1, 2, 3], 6)
    first = group[::3]
    found = locality.null(given, group, cluster, 5, np.random.default_rng(2))
    draw = np.random.default_rng(2)
    slow = [locality.phi(given, np.repeat(draw.permutation(first), 3)) for _ in range(5)]
    assert found == pytest.approx(slow)
    row = locality.tested(given, group, cluster, 5, np.random.default_rng(2))
    assert row["locality_null"] == pytest.approx(np.mean(slow))
    ends = row["locality_null_low"], row["locality_null_high"]
    assert ends == pytest.approx(np.quantile(slow, [0.025, 0.975]))
    with pytest.raises(ValueError, match="a cluster in two groups: must lie in one"):
        locality.null(given, np.arange(24), cluster, 5, rng)


def test_a_cluster_in_two_groups_counts_as_one_of_each():
    rng = np.random.default_rng(3)
    given = rng.integers(1, 9, (8, 1, 3))
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    one = locality.tested(given, group, np.array([0, 0, 1, 1, 1, 1, 2, 2]), 9, rng)
    apart = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    two = locality.tested(given, group, apart, 9, np.random.default_rng(4))
    assert one["locality"] == two["locality"] and 0 < one["locality_p"] <= 1


def test_a_trace_is_grouped_by_domain_and_python_by_package():
    """Three documents a package, each with six tokens at the package's own expert of four; packages
    are named by what stands before the first slash of a cluster.

    CV²_U of a package is 4 (18² − 3 · 6²) / (18² − 3 · 6²) − 1 = 3, of a domain of two of them
    4 (2 · 18² − 6 · 6²) / (36² − 6 · 6²) − 1 = 3/5, of both domains 4 · 864 / 4752 − 1 = −3/11.
    """
    document = np.repeat(np.arange(12), 6)
    domain, cluster = np.repeat([0, 1], 6), np.repeat([0, 1, 2, 3], 3)
    index = cluster[document][None, :, None]
    t = traces.made(index, document, domain=domain, cluster=cluster, names=("c", "python"))
    rng = np.random.default_rng(0)
    domains = locality.by_domain(t, 19, rng).iloc[0]
    packages = locality.by_package(t, "python", 19, rng).iloc[0]
    assert domains.locality == pytest.approx(1 + 3 / 11 * 5 / 3)
    assert packages.locality == pytest.approx(1 - 3 / 5 / 3)
    assert np.isnan(domains.locality_low) and np.isnan(packages.locality_low)  # too few clusters
    assert (domains.within, packages.within) == ("", "python")
    parted = traces.made(index, document, domain=domain, names=("c", "python"))  # own clusters
    named = vars(parted) | {"clusters": np.array([f"{n // 3}/{n}" for n in range(12)])}
    row = locality.by_package(trace.Trace(**named), "python", 19, rng).iloc[0]
    assert row.locality == pytest.approx(1 - 3 / 5 / 3)
    assert row.locality_p < 0.5 and row.locality_null < row.locality


def test_one_domain_alone_has_no_locality():
    t = traces.made([[[0], [1], [2]]], [0, 1, 2])
    rng = np.random.default_rng(0)
    table = locality.by_domain(t, 19, rng)
    assert len(table) == 1 and table[list(locality.TESTED)].isna().all(None)
    assert locality.known(table.assign(arm="a")) == []
    assert len(locality.by_package(t, "python", 19, rng)) == 0


@pytest.mark.filterwarnings("error")
def test_a_router_that_takes_every_expert_has_no_locality():
    every = np.tile([0, 1, 2], (1, 12, 1))
    t = traces.made(every, np.repeat(np.arange(4), 3), domain=[0, 0, 1, 1], experts=3)
    row = locality.by_domain(t, 19, np.random.default_rng(0)).iloc[0]
    assert np.isnan(row.locality) and np.isnan(row.locality_null) and np.isnan(row.locality_high)
