"""What expert counts tell, from the ladder's results: H1, what domains share, drift, and when
imbalance arises.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import stats
from lib.commands import declared, drift
from lib.commands.ladder_results import Results, left_out, mean, of, p_above, pairs, verdict
from lib.routing import shared
from lib.routing.locality import null as phi_null
from lib.routing.locality import phi as phi_of


def arrays(result: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(counts [documents, layers, experts], domain [documents], cluster [documents]) of a profile;
    the last two are numbers, in alphabetical order of what they name.
    """
    own = result["profile"]
    return np.array(own["counts"]), np.array(own["domain"]), np.array(own["cluster"])


def devices(experts: int) -> int:
    """Expert-parallel devices: as declared, half as many where that leaves one expert a device."""
    return declared.DEVICES if experts > declared.DEVICES else declared.DEVICES // 2


def models(results: Results) -> pd.DataFrame:
    """A row per model that ended well: what it was, and its profile in numbers (means over layers).

    nats per token, accuracy; gini; max_violation (P95 over serving batches); phi, and phi_null, its
    mean where clusters change their domain; shared and specific; the columns of `drift.table`.
    """
    rows = []
    for name in dict.fromkeys(r["job"]["name"] for r in results.values()):
        for result in of(results, name, "profile"):
            counts, domain, cluster = arrays(result)
            own, job = result["profile"], result["job"]
            both = shared.split(counts, domain)
            violation = np.quantile(stats.max_violation(np.array(own["serving"])), 0.95, axis=0)
            null = _null(result, 200)
            rows.append(
                {name: job[name] for name in ("name", "seed", "loss", "coefficient")}
                | {
                    "nats": sum(own["nats"]) / sum(own["tokens"]),
                    "accuracy": sum(own["correct"]) / sum(own["tokens"]),
                    "gini": stats.gini(counts.sum(0)).mean(),
                    "max_violation": violation.mean(),
                    "phi": phi_of(counts, domain),
                    "phi_null": null.mean(),
                    "shared": both[0].mean(),
                    "specific": both[1].mean(),
                }
                | drift.table(counts, domain, cluster, devices(counts.shape[2]))
            )
    return pd.DataFrame(rows)


def _null(result: dict, draws: int) -> np.ndarray:
    """Φ [draws] of one model where whole clusters change their domain."""
    counts, domain, cluster = arrays(result)
    return phi_null(counts, domain, cluster, draws, np.random.default_rng(0))


def locality(
    results: Results, name: str = "none", draws: int = declared.LOCALITY_DRAWS
) -> tuple[dict, pd.DataFrame]:
    """H1: (the mean of Φ over checkpoints with p and verdict; a row per checkpoint).

    A checkpoint's p_labels is the share of permutations whose Φ is as large, the observed counted;
    null is their mean.  p: the larger of that of Φ > `LOCALITY` and of the largest p_labels; the
    verdict is *supported* only where that largest is at most .05 too.
    """
    each, rows = [], []
    for result in of(results, name, "profile"):
        counts, domain, cluster = arrays(result)

        def phi(rows: np.ndarray, c=counts, d=domain) -> float:
            return phi_of(c[rows], d[rows])

        own = left_out(cluster, phi)
        null = _null(result, draws)
        each.append(own)
        rows.append(
            {
                "seed": result["job"]["seed"],
                "phi": own[0],
                "null": null.mean(),
                "p_labels": (1 + (null >= own[0]).sum()) / (1 + draws),
            }
        )
    row, table = mean(each), pd.DataFrame(rows)
    decided = verdict(row["low_all"], row["high_all"], declared.LOCALITY)
    if decided == "supported" and table.p_labels.max() > 0.05:
        decided = "undecided"
    p = max(p_above(row, declared.LOCALITY), float(table.p_labels.max()))
    return row | {"p": p, "verdict": decided}, table


def within(results: Results, name: str = "none", domain: str = declared.PYTHON) -> pd.DataFrame:
    """Φ by package within one domain, a row per checkpoint: phi and the mean of its null; NaN where
    fewer than two packages have two documents.
    """
    rows = []
    for result in of(results, name, "profile"):
        counts, of_domain, cluster = arrays(result)
        own = result["profile"]
        mine = of_domain == own["domains"].index(domain)
        package = [own["clusters"][number].split("/")[0] for number in cluster[mine]]
        names, group = np.unique(package, return_inverse=True)
        phi, null = np.nan, np.array([np.nan])
        if (np.bincount(group) > 1).sum() > 1:
            phi = phi_of(counts[mine], group)
            rng = np.random.default_rng(0)
            null = phi_null(counts[mine], group, cluster[mine], 200, rng)
        rows.append(
            {
                "seed": result["job"]["seed"],
                "packages": len(names),
                "phi": phi,
                "null": null.mean(),
            }
        )
    return pd.DataFrame(rows)


def _split(result: dict) -> np.ndarray:
    """[2, 1 + clusters] shared and specific CV² of one model, as `left_out` gives them."""
    counts, domain, cluster = arrays(result)
    masks = [np.ones(len(cluster), bool), *(cluster != c for c in np.unique(cluster))]
    both = [shared.split(counts[mask], domain[mask]) for mask in masks]
    return np.array(both).mean(2).T


def parts(results: Results, name: str) -> pd.DataFrame:
    """Shared and specific CV² and their ratio shared / (shared + specific), a row each: `mean` over
    the checkpoints of one configuration.
    """
    found = [_split(result) for result in of(results, name, "profile")]
    rows = {
        "shared": [common for common, _ in found],
        "specific": [own for _, own in found],
        "share": [common / (common + own) for common, own in found],
    }
    return pd.DataFrame([{"part": key} | mean(values) for key, values in rows.items()])


def gaps(results: Results, without: str = "none", loss: str = "switch") -> pd.DataFrame:
    """What a balance loss changes of shared and specific CV², a row each: with it minus without,
    `mean` over pairs of one seed.
    """
    found = [_split(b) - _split(a) for a, b in pairs(results, without, loss, "profile")]
    rows = zip(("shared", "specific"), zip(*found, strict=True), strict=True)
    return pd.DataFrame([{"part": key} | mean(values) for key, values in rows])


def kept(results: Results, name: str) -> pd.DataFrame:
    """What is left of a packed placement's gain on the same and on another domain: `mean` over the
    checkpoints of one configuration (their interval is over checkpoints alone).
    """
    found: dict[str, list[np.ndarray]] = {"same": [], "other": []}
    for result in of(results, name, "profile"):
        counts, domain, cluster = arrays(result)
        row = drift.table(counts, domain, cluster, devices(counts.shape[2]))
        for key, values in found.items():
            values.append(np.array([row[f"kept_{key}"]]))
    return pd.DataFrame([{"text": key} | mean(values) for key, values in found.items()])


def path(result: dict) -> pd.DataFrame:
    """One training, a row per fraction at which it was profiled: step, nats per token, gini, and
    settled: what is left at the end of the gain of a placement packed at that time (1: all).
    """
    rows = []
    steps = result["path"]
    last = np.array(steps[-1]["counts"]).sum(0) if steps else np.zeros((0, 2))
    number = devices(last.shape[1]) if steps else 1
    rng = np.random.default_rng(0)
    homes = [drift.placement.random(last.shape[1], number, rng) for _ in range(drift.RANDOM)]
    for step in steps:
        load = np.array(step["counts"]).sum(0)
        rho = np.array(
            [
                [
                    np.mean([drift.busiest(end, home, number) for home in homes]),
                    drift.busiest(end, drift.placement.packed(then, number), number),
                    drift.busiest(end, drift.placement.packed(end, number), number),
                ]
                for then, end in zip(load, last, strict=True)
            ]
        ).mean(0)
        rows.append(
            {
                "step": step["step"],
                "nats": sum(step["nats"]) / sum(step["tokens"]),
                "gini": stats.gini(load).mean(),
                "settled": (rho[0] - rho[1]) / (rho[0] - rho[2]),
            }
        )
    return pd.DataFrame(rows)
