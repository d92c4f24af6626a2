"""What to do about an imbalance, by declared thresholds: the one decision of the advice, the
decision table and the page for one's own model.

The order is that of what it costs: nothing; experts placed by their load, copies, the same anew
when the text changes; and where no placement takes off anything that counts, fewer experts, larger
batches, and the router last, whose change costs quality: only where chance alone would not cost a
perfect router as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib.commands import declared

# what is done, in words; `book/_static/advice.js` has the same names
ACTIONS = {
    "nothing": "Do nothing",
    "fewer": "Activate fewer experts",
    "pack": "Place experts by their load",
    "copy": "Place experts by their load, copies of the busiest in spare slots",
    "rebalance": "Place experts by their load with copies, anew when the text changes",
    "router": "Change the router",
    "larger": "Serve larger batches",
}
# who loads or does it, as `place` and the engines' own options say; "" where none is known
OFFERED = {
    "nothing": "all",
    "fewer": "",
    "pack": "SGLang, TensorRT-LLM",
    "copy": "SGLang, TensorRT-LLM",
    "rebalance": "SGLang, TensorRT-LLM, vLLM",
    "router": "no engine",
    "larger": "all",
}
ORDER, PACKED, COPIED = "in order", "packed", "replicated"
DOES = {PACKED: "pack", COPIED: "copy"}


@dataclass(frozen=True)
class Rules:
    """Thresholds, each a setting.

    enough: share of a layer's time that counts: an imbalance is left alone where perfect balance
    takes no more off, and so is a placement that takes no more off.  lasting: busiest device under
    a stale over that under a fresh placement, up to which a placement lasts.  small_beta:
    elasticity below which, while decoding, balance does not pay.
    """

    enough: float = 0.03
    lasting: float = 1.1
    small_beta: float = 0.1

    def table(self) -> pd.DataFrame:
        """One row: the thresholds by name."""
        return pd.DataFrame([vars(self)])

    def __str__(self) -> str:
        return (
            f"what counts: more than {self.enough:.3g} of a layer's time; a placement lasts: "
            f"busiest device, stale over fresh, up to {self.lasting:.3g}; small elasticity while "
            f"decoding ({declared.FEW_TOKENS} tokens a device at most): below {self.small_beta:.3g}"
        )


def ceiling(slowdown: float) -> float:
    """Which share of its time a layer that is slower by `slowdown` would lose by perfect balance:
    1 − 1/(1 + slowdown).
    """
    return 1 - 1 / (1 + slowdown)


def elasticity(rho: np.ndarray, slowdown: np.ndarray) -> float:
    """β of slowdown = β (ρ − 1), by least squares through the even layer; 0 where all is even."""
    above = np.asarray(rho, dtype=float) - 1
    size = (above**2).sum()
    return float((above * slowdown).sum() / size) if size > 0 else 0.0


def decided(
    left: Mapping[str, float],
    beta: float,
    drift: float,
    tokens: int,
    rules: Rules,
    fresh: Mapping[str, float] | None = None,
    chance: float = 0.0,
) -> str:
    """The name in `ACTIONS` of what to do.

    left: by placement (`ORDER`, `PACKED`, `COPIED`) the ceiling that is left under it; fresh: where
    it is made for the very text that it serves, if `left` is of another.  drift: ρ of stale over
    fresh placements, NaN where there is one text alone, which then counts as lasting.  Of the
    placements the first that leaves no more than `rules.enough`, else the one that leaves least.
    chance: the ceiling in batches as large of a router that loads all experts alike.
    """
    if left[ORDER] <= rules.enough:
        return "nothing"
    way, fresh = _way(left, rules), fresh or left
    stale, anew = left[way], fresh[_way(fresh, rules)]
    if left[ORDER] - min(stale, anew) <= rules.enough:
        if tokens <= declared.FEW_TOKENS and beta < rules.small_beta:
            return "fewer"
        return "router" if left[ORDER] - chance > rules.enough else "larger"
    return "rebalance" if drift > rules.lasting or stale - anew > rules.enough else DOES[way]


def _way(left: Mapping[str, float], rules: Rules) -> str:
    """The placement that is taken, be it one that takes off nothing."""
    ways = [name for name in DOES if name in left]
    suffices = (name for name in ways if left[name] <= rules.enough)
    return next(suffices, min(ways, key=lambda name: left[name]))


def told(
    action: str,
    left: Mapping[str, float],
    rules: Rules,
    prices: pd.DataFrame,
    fresh: Mapping[str, float] | None = None,
    chance: float = 0.0,
) -> str:
    """A decision as a sentence: of the ceiling what is left, and of a router's change the price.

    prices: columns way, nats with its interval, models, start (whether it needs a new training).
    """
    before, words = left[ORDER], ACTIONS[action]
    if action == "nothing":
        return f"{words}: perfect balance would take {before:.1%} off a layer's time."
    if action == "fewer":
        return f"{words}: at so few tokens a device the busiest one hardly sets the pace."
    if action == "larger":
        lost = f"imbalance takes {before:.1%} of a layer's time, and under a perfect router"
        return f"{words}: {lost} batches of this size would take {chance:.1%} by chance alone."
    known = prices[~prices.start.astype(bool)].sort_values("nats")
    price = "" if known.empty else f" ({priced(known.iloc[0])})"
    if action == "router":
        least = min([*left.values(), *(fresh or {}).values()])
        takes = f"imbalance takes {before:.1%} of a layer's time"
        return f"{words}{price}: {takes}, {least:.1%} under the best placement."
    after, new = left[_way(left, rules)], ""
    takes = f"imbalance then takes {after:.1%} of a layer's time instead of {before:.1%}"
    anew = fresh[_way(fresh, rules)] if fresh else after
    if action == "rebalance" and anew < after:
        after, new = anew, f", {anew:.1%} while it is new"
    more = ""
    if after > rules.enough:
        more = f". Only a change of the router takes off more{price}"
        if after - chance <= rules.enough:
            rest = f"batches of this size would take {chance:.1%} by chance alone"
            more = f". Under a perfect router {rest}"
    return f"{words}: {takes}{new}{more}."


def priced(row: pd.Series) -> str:
    """A row of prices in words."""
    interval = f"[{row.nats_low:.3f}, {row.nats_high:.3f}]"
    of = "this model" if row.models == 0 else f"{row.models:.0f} small models"
    return f"{row.way} cost {row.nats:.3f} {interval} nats per token in {of}"
