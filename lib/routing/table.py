"""What is known of every strategy, a row each: the one place that a new strategy enters.

A row and its function are enough for `bind`, and for the chapter on assigning otherwise, which
tries whatever its parameters name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lib import provenance
from lib.routing import strategies
from lib.routing.strategies import Assignment


@dataclass(frozen=True)
class Strategy:
    """A function of `strategies`, and what those who call it must know.

    function: from scores [..., tokens, experts], k and keywords to (index, weights).
    causal: it never looks at later tokens of its group.  (A group of one decoding step of different
        documents has no later tokens: there every strategy is legal.)
    on_logs: it adds scores up, and so takes the logarithms of gates.
    fixed: keywords that are the same in all its settings.
    sweep: the keyword that a study varies, "" for none; values: which values it then takes, empty
        where the study says (`bind.settings`).
    needs: keywords that `bind` hands it in every layer: names of `bind.GIVEN`, or of `bind.Fits`.
    policy: the weights that its authors define, one of `weighing.POLICIES`; "native", the router's
        own rule at the new experts, also where they say nothing or have no router.  A study judges
        it with these, whatever others it tries.
    own: it stands for the router's own choice, which is left as it is, bit for bit.
    slow: it takes seconds for a group of hundreds of tokens.
    """

    function: Callable[..., Assignment]
    causal: bool = False
    on_logs: bool = False
    fixed: Mapping[str, object] = field(default_factory=dict)
    sweep: str = ""
    values: tuple[float, ...] = ()
    needs: tuple[str, ...] = ()
    policy: str = "native"
    own: bool = False
    slow: bool = False


STRATEGIES = {
    "native": Strategy(strategies.native, causal=True, own=True),
    "random": Strategy(strategies.random, causal=True, needs=("seed",)),
    "round_robin": Strategy(strategies.round_robin, causal=True),
    "hashed": Strategy(strategies.hashed, causal=True, needs=("token_ids", "table")),
    "drop": Strategy(strategies.drop, sweep="gamma"),
    "drop_position": Strategy(
        strategies.drop, causal=True, fixed={"priority": "position"}, sweep="gamma"
    ),
    "expanded_drop": Strategy(strategies.expanded_drop, fixed={"extra": 2}, sweep="gamma"),
    "reroute": Strategy(strategies.reroute, sweep="gamma"),
    "optimal": Strategy(strategies.optimal, on_logs=True, sweep="gamma", values=(1.25,), slow=True),
    "sinkhorn": Strategy(strategies.sinkhorn, on_logs=True),
    "biased": Strategy(strategies.biased, causal=True, sweep="bias_scale", needs=("bias",)),
    "expert_choice": Strategy(strategies.expert_choice),
    "least_loaded": Strategy(strategies.least_loaded, causal=True, sweep="among"),
    "threshold": Strategy(strategies.threshold, causal=True, needs=("cut",)),
    "activate_fewer": Strategy(strategies.activate_fewer, fixed={"least": 1}),
}


def find(name: str) -> Strategy:
    """The row of that name; an unknown one is refused with the nearest that exists."""
    if name not in STRATEGIES:
        hint = provenance.nearest(name, STRATEGIES)
        raise ValueError(f"strategies: {name!r}: must be one of {', '.join(STRATEGIES)}{hint}")
    return STRATEGIES[name]
