"""Times that others published, held against the model: DeepEP's kernels, the predecessor's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

import numpy as np
import pandas as pd

from lib.measure.fitting import (
    START,
    alltoall_s,
    fit,
    leave_one_out,
    nodes_s,
    normal_s,
    published_s,
)
from lib.network import cost

CLAIMED = {"least": 0.58, "most": 1.04}  # of an exchange, as the predecessor's text says
# declared before any of the tables that judge was looked at: all-to-alls are fitted on one card and
# judged on every other, up to SMALL; DeepEP's normal kernels are fitted on one node, which tells
# NVLink's rate, and on four, which tell a network card's, and judged on two and eight
FITTED, SMALL = "h200", 65536  # the card; bytes of one device, its own share included
EXPERTS, GROUPS = 256, 4  # of DeepEP's benchmark: experts, and nodes that a token may reach
LEAST = 4  # numbers of devices that fit the three parameters of published_s


def low_latency(deepep: pd.DataFrame, fitted: Sequence[int]) -> pd.DataFrame:
    """DeepEP's low-latency times per phase and number of devices, with predictions of
    fitting.published_s: predicted_us and error from a fit on the `fitted` numbers of devices alone;
    in_sample, its error fitted on all; left_out, fitted on all others.  Errors are signed.

    deepep: data/published/deepep.csv.  Refused: `fitted` that are not published, are fewer than 4,
    or leave none to test.
    """
    fast = deepep[deepep.kernel == "low latency"]
    parted(fast, fitted, LEAST)
    found = [_phase(own, own.devices.isin(fitted)) for _, own in fast.groupby("phase", sort=False)]
    return pd.concat(found, ignore_index=True)


def parted(
    table: pd.DataFrame, fitted: Sequence[int], least: int = 1, name: str = "fitted"
) -> None:
    """Refuse numbers of devices that the table does not have, fewer than `least`, or all of them,
    which leaves none to test.
    """
    known = sorted(set(table.devices))
    if not set(fitted) < set(known) or len(set(fitted)) < least:
        rule = f"must be at least {least} of {known}, not all"
        raise ValueError(f"published: {name} = {list(fitted)}: {rule}")


def _phase(own: pd.DataFrame, fitted: pd.Series) -> pd.DataFrame:
    """One phase of `low_latency`; fitted: which of its rows the fit on a part sees."""
    sent = own.tokens * own.selections * own.bytes_per_selection
    given = {"devices": own.devices.to_numpy(), "bytes": sent.to_numpy()}
    start, seconds, chosen = START["published"], 1e-6 * own.time_us.to_numpy(), fitted.to_numpy()
    seen = {name: values[chosen] for name, values in given.items()}
    part = fit(published_s, seen, seconds[chosen], start, draws=0)
    whole = fit(published_s, given, seconds, start, draws=0)
    return own[["phase", "devices", "time_us"]].assign(
        part=np.where(chosen, "fit", "held_out"),
        predicted_us=1e6 * part(given),
        error=part(given) / seconds - 1,
        in_sample=np.expm1(whole.residuals),
        left_out=leave_one_out(published_s, given, seconds, start) / seconds - 1,
        nic_gb_per_s=1e-9 * whole.parameters["nic_bytes_per_s"],
    )


def by_nodes(
    table: pd.DataFrame,
    fitted: Sequence[int],
    kernel: str = "low latency",
    most: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Times of many batches on several numbers of devices, predicted by fitting.nodes_s, of the
    "normal" kernels by normal_s, from the `fitted` numbers of devices: the kernel's rows with part,
    predicted_us and error (signed).

    table: data/published/deepep_nodes.csv.  most: what physics lets a parameter be at most, by
    name.  Refused: `fitted` that leave none to fit or to test.
    """
    table = table[table.kernel == kernel]
    parted(table, fitted)
    large = kernel == "normal"
    model, start = (normal_s, START["normal"]) if large else (nodes_s, START["nodes"])
    found = []
    for _, own in table.groupby("phase", sort=False):
        given = _sent(own)
        seen, seconds = own.devices.isin(fitted).to_numpy(), 1e-6 * own.time_us.to_numpy()
        part = {name: values[seen] for name, values in given.items()}
        made = fit(model, part, seconds[seen], start, draws=0, most=most)
        found.append(_judged(own, seen, made(given)))
    return pd.concat(found, ignore_index=True)


def _sent(own: pd.DataFrame) -> dict[str, np.ndarray]:
    """Features of one phase of `by_nodes`, in bytes of one device: a copy per selection, `bytes`;
    `remote` and `copies`, one per node and per device that a token reaches and is not on (reached).
    """
    token = (own.tokens * own.bytes_per_selection).to_numpy()
    devices, k = own.devices.to_numpy(), own.selections.to_numpy()
    nodes, each = np.array([reached(n, c) for n, c in zip(devices, k, strict=True)]).T
    away = 1 - np.minimum(8, devices) / devices
    return dict(
        devices=devices,
        bytes=token * k,
        remote=token * nodes * away,
        copies=token * each * (1 - 1 / devices),
    )


def reached(devices: int, k: int) -> tuple[float, float]:
    """How many nodes of 8 devices, and how many devices, a token reaches in the mean that goes to k
    of EXPERTS, drawn without replacement from those of at most GROUPS nodes (DeepEP's benchmark of
    its normal kernels).
    """
    nodes = min(devices // 8, GROUPS)
    few, each = EXPERTS * 8 * nodes // devices, EXPERTS // devices

    def none_of(experts: int) -> float:
        return comb(few - experts, k) / comb(few, k)

    return nodes * (1 - none_of(8 * each)), 8 * nodes * (1 - none_of(each))


def _judged(own: pd.DataFrame, seen: np.ndarray, told_s: np.ndarray) -> pd.DataFrame:
    """Rows with their part, "fit" where `seen`, predicted_us and the signed error."""
    told = dict(predicted_us=1e6 * told_s, error=1e6 * told_s / own.time_us - 1)
    return own.assign(part=np.where(seen, "fit", "held_out"), **told)


def alltoalls(table: pd.DataFrame, exchange: Mapping[str, float]) -> pd.DataFrame:
    """Published even all-to-alls of at most SMALL bytes a device: part ("fit" on the card FITTED,
    "held_out" on all others), predicted_us and error of alltoall_s from the fitted card, and
    used_error, that of cost.exchange_s with the parameters `exchange`, which the network chapter
    computes with; errors are signed.

    table: data/published/alltoall.csv.
    """
    own = table[table.bytes <= SMALL].reset_index(drop=True)
    given = {name: own[name].to_numpy() for name in ("devices", "bytes")}
    seen, seconds = (own.card == FITTED).to_numpy(), 1e-6 * own.time_us.to_numpy()
    part = {name: values[seen] for name, values in given.items()}
    made = fit(alltoall_s, part, seconds[seen], START["alltoall"], draws=0)
    wire = given["bytes"] * (1 - 1 / given["devices"])
    sent = dict(wire_bytes=wire, back_bytes=wire, own_bytes=given["bytes"])
    used = cost.exchange_s(exchange, sent | dict(messages=given["devices"] - 1))
    return _judged(own, seen, made(given)).assign(used_error=used / seconds - 1)


def alltoall_errors(found: pd.DataFrame) -> pd.DataFrame:
    """Of `alltoalls`, per card and number of devices, part, error_median and error_most of the fit,
    and used_median of what the network chapter uses.
    """
    sizes = found.assign(error=found.error.abs(), used_error=found.used_error.abs())
    of = sizes.groupby(["card", "part", "devices"], sort=False)
    return of.agg(
        error_median=("error", "median"),
        error_most=("error", "max"),
        used_median=("used_error", "median"),
    ).reset_index()


def alltoall_off(found: pd.DataFrame) -> pd.DataFrame:
    """Of `alltoalls` the median error of the fit (alltoall_off) and of what the network chapter
    uses (alltoall_used): columns card, "" for all cards that were not fitted together, and those.
    """
    own = found.assign(alltoall_off=found.error.abs(), alltoall_used=found.used_error.abs())
    every = [own[own.part == "held_out"].assign(card=""), own]
    of = pd.concat(every).groupby("card", sort=False)
    return of[["alltoall_off", "alltoall_used"]].median().reset_index()


def node_errors(found: pd.DataFrame) -> pd.DataFrame:
    """Of `by_nodes`, per kernel, phase and number of devices that were not fitted: columns kernel,
    phase, devices, error_median and error_most.
    """
    own = found[found.part == "held_out"].assign(error=lambda rows: rows.error.abs())
    of = own.groupby(["kernel", "phase", "devices"], sort=False).error
    return of.agg(error_median="median", error_most="max").reset_index()


def nodes_off(found: pd.DataFrame, name: str = "nodes") -> pd.Series:
    """Of `by_nodes`, <name>_off, the median error where nothing was fitted, and <name>_fitted, the
    numbers of devices that were, in words.
    """
    held = found[found.part == "held_out"].error.abs().median()
    fitted = ", ".join(map(str, sorted(set(found.devices[found.part == "fit"]))))
    return pd.Series({f"{name}_off": held, f"{name}_fitted": fitted}, dtype=object)


def summary(deep: pd.DataFrame) -> pd.DataFrame:
    """What `low_latency` comes to: columns phase, of and deepep.

    Per phase the largest error in sample (of ""), of each predicted from all others ("left_out"),
    without a single node, and the rate of a network card in GB/s ("nic"); over both, the largest
    error of the fit on a part ("others") and of the single node from all others ("alone").
    """
    fewest, rows = deep.devices.min(), []
    for phase, own in deep.groupby("phase", sort=False):
        rows += [
            (phase, "", own.in_sample.abs().max()),
            (phase, "left_out", own[own.devices > fewest].left_out.abs().max()),
            (phase, "nic", own.nic_gb_per_s.iloc[0]),
        ]
    rows += [
        ("", "others", deep[deep.part == "held_out"].error.abs().max()),
        ("", "alone", deep[deep.devices == fewest].left_out.abs().max()),
    ]
    return pd.DataFrame(rows, columns=["phase", "of", "deepep"])


def furthest(deep: pd.DataFrame) -> pd.Series:
    """Of `low_latency`, the largest error of each phase where nothing was fitted."""
    held = deep[deep.part == "held_out"]
    return held.assign(error=held.error.abs()).groupby("phase").error.max()


def met(deep: pd.DataFrame) -> pd.Series:
    """`summary` by name: deepep_<phase>, deepep_<phase>_left_out, deepep_<phase>_nic,
    deepep_others and deepep_alone.
    """
    rows = summary(deep)
    parts = rows.assign(first="deepep")[["first", "phase", "of"]].to_numpy()
    return pd.Series(rows.deepep.to_numpy(), index=["_".join(filter(None, row)) for row in parts])


def rates(deepep: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Rates of DeepEP's normal kernels, GB/s per number of devices: dispatch and combine as its
    documentation tells them, and dispatch_others and combine_others, those that another table's
    times of as many tokens come to, counted as there: on one node a copy of a token per device that
    it reaches, on several one per node, its own included.
    """
    own = deepep[deepep.kernel == "normal"]
    told = 1e-9 * own.pivot(index="devices", columns="phase", values="bytes_per_s")
    same = others[others.tokens == own.tokens.iloc[0]]
    ways = [reached(n, k) for n, k in zip(same.devices, same.selections, strict=True)]
    copies = np.where(same.devices > 8, *np.array(ways).T)
    sent = same.tokens * same.bytes_per_selection * copies
    there = same.assign(rate=1e-3 * sent / same.time_us).pivot(
        index="devices", columns="phase", values="rate"
    )
    both = told[["dispatch", "combine"]].join(there[["dispatch", "combine"]], rsuffix="_others")
    return both.reset_index().rename_axis(columns=None)


def slowdowns(predecessor: pd.DataFrame) -> pd.DataFrame:
    """The predecessor's table (level, max_time_us) with the slowdown over its first level."""
    times = predecessor.max_time_us
    return predecessor.assign(slowdown=times / times.iloc[0] - 1)


def ranges(slowed: pd.DataFrame) -> pd.Series:
    """The least and the largest slowdown beyond the first level, predecessor_least and _most,
    beside those that the predecessor's text claims, claimed_least and _most, by name.
    """
    found = slowed.slowdown.iloc[1:]
    own = dict(predecessor_least=found.min(), predecessor_most=found.max())
    return pd.Series(own | {f"claimed_{end}": share for end, share in CLAIMED.items()})
