"""Whether a checkpoint fills a model: transformers leaves at random what it does not find, and
finds only in use that a configuration asks for what cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # as configurations call them


def check(name: str, told: Mapping[str, object]) -> None:
    """Refuse what the loading information of transformers tells of weights that the checkpoint
    lacks (they would be random), has in another shape, or has besides (scales of a quantisation,
    say), in one line that names them.
    """
    faults = {"missing": "missing_keys", "of another shape": "mismatched_keys"}
    faults["not of this model"] = "unexpected_keys"
    parts = []
    for words, kind in faults.items():
        found: list = sorted(told.get(kind) or (), key=str)  # type: ignore[call-overload]
        if found:
            first = found[0] if isinstance(found[0], str) else found[0][0]
            parts.append(f"{words}: {first}" + (f" and {len(found) - 1} more" if found[1:] else ""))
    if parts:
        rule = "must be those of the model, all of them and no others"
        raise ValueError(f"load: model = {name!r}: weights {'; '.join(parts)}: {rule}")


def chooses(name: str, settings) -> None:
    """Refuse a configuration by which a token takes more experts than there are, or none."""
    text = settings.get_text_config()
    experts = next((n for key in EXPERTS if type(n := getattr(text, key, None)) is int), None)
    k = getattr(text, "num_experts_per_tok", None)
    if type(k) is int and experts is not None and not 1 <= k <= experts:
        rule = f"must be from 1 to {experts}, the experts"
        raise ValueError(f"load: model = {name!r}: num_experts_per_tok = {k}: {rule}")
