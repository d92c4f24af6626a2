"""The book's computations against those of `recomputed.py`, which does not use them."""

import json

import numpy as np
import pandas as pd
import pytest
import recomputed
import unpacked

from lib import stats
from lib.commands import hypotheses, ladder_profile, popularity, synthesis
from lib.network import counts as counts_of
from lib.network import transfer
from lib.routing import locality, parts, profile, sampling, serving, trace

ARMS = ("without", "with")


@pytest.fixture(scope="module")
def traces():
    folder = recomputed.DATA / "reference/01"
    return {arm: trace.load(next(folder.glob(f"trace_{arm}.*"))) for arm in ARMS}


@pytest.fixture(scope="module")
def routes(traces):
    return {arm: recomputed.routes(vars(t)) for arm, t in traces.items()}


@pytest.fixture(scope="module")
def results():
    return synthesis.published()


@pytest.fixture(scope="module")
def rows(results):
    return list(results.values())


def test_both_nulls(traces, routes):
    """The Gini of a router that is balanced over documents, and over whole clusters."""
    rng = np.random.default_rng(0)
    table = profile.each(parts.nulls, traces, parts=parts.whole, draws=60, rng=rng)
    found = profile.chance(traces["without"], table).set_index(["null", "arm"]).gini
    for arm in ARMS:
        counts, _, cluster = routes[arm]
        own = parts.measured(traces[arm], parts.whole)
        assert own.gini.mean() == pytest.approx(recomputed.gini(counts.sum(0)))
        by_document = recomputed.null_gini(counts, 4)
        by_cluster = recomputed.null_gini(recomputed.by_group(counts, cluster), 60)
        assert found["document_null", arm] == pytest.approx(by_document, rel=0.1)
        assert found["cluster_null", arm] == pytest.approx(by_cluster, rel=0.05)
        assert by_cluster > 4 * by_document


def test_phi_and_its_null(traces, routes):
    for arm in ARMS:
        row = locality.by_domain(traces[arm], 200, np.random.default_rng(0)).iloc[0]
        counts, domain, cluster = routes[arm]
        assert row.locality == pytest.approx(recomputed.phi(counts, domain))
        null = recomputed.phi_null(counts, domain, cluster, 60)
        assert row.locality_null == pytest.approx(null.mean(), abs=3 * null.std() / np.sqrt(60))
        assert row.locality_null_low < null.mean() < row.locality_null_high < row.locality


def test_phi_within_python_is_by_package(traces, routes):
    for arm in ARMS:
        rng = np.random.default_rng(0)
        row = locality.by_package(traces[arm], "python", 20, rng).iloc[0]
        counts, domain, cluster = routes[arm]
        mine = domain == "python"
        package = np.array([str(name).split("/")[0] for name in cluster[mine]])
        assert len(set(package)) < len(set(cluster[mine]))
        assert row.locality == pytest.approx(recomputed.phi(counts[mine], package))


def test_what_a_few_documents_say(traces, routes):
    rng = np.random.default_rng(0)
    for arm in ARMS:
        row = sampling.curve(traces[arm], [8], 300, rng).iloc[0]
        found = recomputed.of_samples(routes[arm][0], 8, 300)
        assert row.gini == pytest.approx(found["gini"], rel=0.05)
        assert row.dead == pytest.approx(found["dead"], abs=0.5)
        assert row.hot == pytest.approx(found["hot"], abs=0.05)


def test_one_prompt_repeated(traces):
    """Of every document of the published routes; the batches that hold it alone show the same."""
    told = json.loads((recomputed.DATA / "reference/01/values.json").read_text())["values"]
    for arm in ARMS:
        _, violation = recomputed.of_prompts(vars(traces[arm]), 64)
        table = serving.repeated(traces[arm], 64)
        assert np.sort(table.max_violation) == pytest.approx(np.sort(violation))
        for part in (50, 99):
            published = told[f"batch_maxvio_p{part}_repeated_{arm}"]["value"]
            assert published == pytest.approx(np.percentile(violation, part))
    own = traces["with"]
    batch = serving.repeats(own, 64 * 5, len(own.cluster), np.random.default_rng(0))
    gini = stats.gini(profile.batch_loads(own, batch)).ravel()
    alone = recomputed.of_prompts(vars(own), 64)[0]
    long = np.bincount(own.document) >= 64  # of a shorter one the last copy is cut off
    wanted = alone.reshape(-1, len(long))[:, long].ravel()
    found = gini.reshape(-1, len(long))[:, long[own.document[batch[:, 0]]]].ravel()
    assert np.sort(found) == pytest.approx(np.sort(wanted))


def test_what_packing_keeps_is_of_one_model_and_has_no_interval():
    counts = pd.read_csv(transfer.COUNTS)
    rows = counts_of.judged(counts, {"own": ("OLMoE-1B-7B", 8)})
    found = counts_of.kept(rows, {"packing_kept": ("own", "packed")})
    assert found.columns.tolist() == ["name", "value"]  # 15 cells of one model are no 15 clusters
    assert found.value[0] == pytest.approx(recomputed.packing_kept(8))
    told = json.loads((recomputed.DATA / "reference/04/values.json").read_text())["values"]
    assert told["packing_kept"]["value"] == pytest.approx(found.value[0])
    assert told["packing_kept"]["interval"] is None


def test_holm_over_all_that_was_declared(results):
    table = hypotheses.family(synthesis.hypotheses(results, 20), results)
    assert (table.p.isna() == (table.verdict == "not run")).all()
    entered = table.p.fillna(1.0).tolist()
    assert len(entered) == 8 and table.p_holm.tolist() == pytest.approx(recomputed.holm(entered))
    assert recomputed.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    rests = table.set_index("hypothesis").checkpoints
    seeds = recomputed.profiled(list(results.values()), "none").keys()
    assert rests["H1"] == rests["H2a"] == rests["H5"] == len(seeds)


def test_what_a_balance_loss_takes_away(rows, results):
    """Shared and own CV² of every pair, and that the former falls in each."""
    found = {}
    for name in ("none", "switch"):
        for seed, own in recomputed.profiled(rows, name).items():
            counts = np.array(own["counts"], dtype=float)
            found[name, seed] = recomputed.split(counts, np.array(own["domain"]))
    shares = synthesis.shares(results).set_index(["arm", "quantity"]).estimate
    for arm, name in (("without", "none"), ("with", "switch")):
        means = np.mean([found[key] for key in found if key[0] == name], axis=0)
        # the book weighs documents of two domains by their tokens, as here
        assert shares[arm, "shared"] == pytest.approx(means[0], rel=1e-6)
        assert shares[arm, "specific"] == pytest.approx(means[1], rel=1e-6)
    seeds = {seed for _, seed in found}
    falls = [found["switch", seed][0] - found["none", seed][0] for seed in seeds]
    assert max(falls) < 0 and shares["change", "shared"] == pytest.approx(np.mean(falls))


def test_prevention_and_repair(rows, results):
    without, prevented = (recomputed.profiled(rows, name) for name in ("none", "switch"))
    repaired = {
        row["job"]["seed"]: next(
            part["profile"]
            for part in row["repairs"]
            if part["loss"] == "switch" and part["coefficient"] == 0.1
        )
        for row in rows
        if row["job"]["name"] == "repairs"
    }
    dearer = [recomputed.nats_apart(repaired[seed], prevented[seed]) for seed in prevented]
    above = [recomputed.nats_apart(repaired[seed], without[seed]) for seed in prevented]
    table = synthesis.repairs(results).set_index(["loss", "coefficient"]).loc[("switch", 0.1)]
    assert len(dearer) == 8 and min(dearer) > 0
    assert table.over_start == pytest.approx(np.mean(dearer), abs=1e-6)
    assert table.repair == pytest.approx(np.mean(above), abs=1e-6)
    assert table.over_start_low < np.mean(dearer) < table.over_start_high


def test_the_embedded_pair_gains_as_the_others_do(results):
    """Against the evaluations that stand beside the weights, another run of the same models."""
    folder = recomputed.DATA / "model"
    parts = {arm: pd.read_csv(folder / f"held_out_{arm}.csv.xz") for arm in ARMS}
    nats = {arm: own[own.cut == 512].set_index("name") for arm, own in parts.items()}
    gap = (nats["without"].nats - nats["with"].nats).sum() / nats["with"].tokens.sum()
    models = ladder_profile.models(results)
    row = synthesis.quality(results, models).set_index("loss").loc["embedded"]
    assert row.gain == pytest.approx(gap, abs=1e-3) and row.gain_low < gap < row.gain_high


def test_ranks_of_popularity_and_of_what_is_kept(results):
    own = popularity.each(ladder_profile.models(results))
    ranks = own[["shared_share", "gain_kept"]].rank().to_numpy()
    apart = ranks - ranks.mean(0)
    found = popularity.order(own)
    assert found.order_all == pytest.approx(
        (apart[:, 0] * apart[:, 1]).sum() / np.sqrt((apart**2).sum(0).prod())
    )
    sizes = popularity.numbers(own)
    assert sizes.models_all == len(own) == sizes.models_even + sizes.models_uneven


def test_published_routers_share_what_pairs_of_their_texts_do():
    counts = pd.read_csv(recomputed.DATA / "published/real_router_counts.csv")
    table = popularity.others().set_index("name")
    for model, own in counts.groupby("model"):
        shared_parts, within = [], []
        for _, layer in own.groupby("layer"):
            wide = layer.pivot(index="domain", columns="expert", values="count").to_numpy(float)
            share = wide / wide.sum(1, keepdims=True)
            products = wide.shape[1] * share @ share.T - 1
            within.append(np.diag(products).mean())
            shared_parts.append(products[np.triu_indices(len(wide), 1)].mean())
        assert table.shared[model] == pytest.approx(np.mean(shared_parts))
        assert table.specific[model] == pytest.approx(np.mean(within) - np.mean(shared_parts))


def test_post_training_and_a_change_of_text():
    table = popularity.stages().set_index(["change", "devices"])
    for devices in popularity.DEVICES:
        found = recomputed.stage_rho(devices)
        for change, stage in (
            ("instruction tuning", "sft"),
            ("preference tuning", "dpo"),
            ("another text", "text"),
        ):
            row = table.loc[(change, devices)]
            assert row.packed_stale == pytest.approx(found[stage])
            gain = row.rho_random - row.packed_fresh
            assert row.packed_kept == pytest.approx((row.rho_random - found[stage]) / gain)
        assert table.packed_fresh["another text", devices] == pytest.approx(found["base"])
    kept = table.xs(8, level="devices")
    assert kept.packed_kept["another text"] < kept.packed_kept[:2].min()
    assert kept.copied_kept["another text"] < kept.copied_kept[:2].min()


def test_a_bias_that_costs_little_and_placements():
    """H6a: the scale and its cost as published; in devices' load both ways are better than none."""
    values = json.loads((recomputed.DATA / "reference/06/values.json").read_text())["values"]
    results = unpacked.read(recomputed.DATA / "reference/ladder/placed.packed")
    found = pd.DataFrame([recomputed.against_bias(result) for result in results])
    assert found.scale.tolist() == [result["placed"]["scale"] for result in results]
    assert len(found) == values["checkpoints_H6a"]["value"]
    assert found.bias_lost.mean() == pytest.approx(values["bias_lost"]["value"], abs=1e-6)
    assert (found.bias < found.in_order).all() and (found.packed < found.in_order).all()
