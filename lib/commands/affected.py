"""``python -m lib affected MODEL``: whether a model is fine-tuned with the pooled loss of
transformers, and what that loss misses of its layers.

The pooled loss adds up the counts of expert number e over all layers before it looks at them.  The
Trainer of transformers adds it where the configuration has `output_router_logits` set; TRL (SFT,
DPO, GRPO) wherever the configuration's `router_aux_loss_coef` is above zero, unless its own
argument of that name says otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lib.balance import pooled
from lib.commands.line import Line, checked
from lib.model import corpus, load, texts
from lib.routing import observe

HEADS = {
    "gini": "Gini",
    "dead": "dead experts",
    "pooled_agreement": "pool's correlation",
    "pooled_wrong": "experts pushed wrongly",
}
INSTEAD = """instead, in either trainer, before trainer.train():
  from lib.balance import trainer as balance
  balance.attach(trainer, "switch", {coefficient:g})
  trainer.add_callback(balance.Watch(trainer.model))"""


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    line = Line(
        prog="python -m lib affected",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    line.add_argument("model", help="without or with (embedded), a folder, or owner/name of a hub")
    line.add_argument("--revision", default="main", help="commit, branch or tag of a hub's model")
    line.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    line.add_argument(
        "--remote-code", default="", help="the name of the model, if its code may run"
    )
    line.add_argument("--text", default=texts.HELD_OUT, help="held-out, a file, folder or data set")
    line.add_argument("--text-field", default="text", help="field that holds the text")
    line.add_argument("--text-split", default="test", help="split of a data set")
    line.add_argument("--documents", type=int, default=8, help="per domain; of other text in all")
    line.add_argument("--tokens", type=int, default=512, help="of each document")
    line.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return line.parse_args(arguments)


def coefficients(settings) -> dict[str, float]:
    """By trainer the coefficient of the pooled loss that it adds by default, 0 where it adds none,
    from the configuration of a model.
    """
    text = settings.get_text_config()
    known = float(getattr(text, "router_aux_loss_coef", None) or 0)
    returned = hasattr(text, "output_router_logits")
    asked = bool(getattr(text, "output_router_logits", False))
    return {
        "the Trainer of transformers": known if asked else 0.0,
        "TRL (SFT, DPO, GRPO)": known if returned else 0.0,
    }


def verdicts(settings) -> list[str]:
    """`coefficients` in words, a line per trainer, and the fields that decide."""
    text, found = settings.get_text_config(), coefficients(settings)
    names = ("router_aux_loss_coef", "output_router_logits")
    fields = ", ".join(f"{name} = {getattr(text, name, 'not there')}" for name in names)
    lines = [
        f"{who}: {f'adds the pooled loss, times {value:g}' if value else 'adds no balance loss'}"
        for who, value in found.items()
    ]
    return [f"configuration: {fields}", *lines]


def measured(a: argparse.Namespace) -> list[str]:
    """What the pool shows of the layers of a model, by its load on some text."""
    where = load.device(a.device)
    options = dict(dtype=a.dtype, revision=a.revision, code=a.remote_code)
    model, tokenizer = load.open(a.model, device=where, **options)
    found = texts.chosen(a.text, a.documents, field=a.text_field, split=a.text_split)
    counts = observe.trace(model, corpus.encode(found, tokenizer, a.tokens)).load
    table, whole = pooled.layers(counts), pooled.seen(counts)
    return [
        table.rename(columns=HEADS).round(3).to_string(index=False),
        f"the pool: Gini {whole['pooled_gini']:.3f}, where the layers have {table.gini.mean():.3f} "
        f"in the mean; {whole['pooled_wrong']:.0%} of the experts are pushed the wrong way",
    ]


def main(arguments: Sequence[str]) -> None:
    """Print what the configuration says, then what the pooled loss misses of the layers."""
    a = parsed(arguments)
    own = dict(documents=a.documents, tokens_per_document=a.tokens, dtype=a.dtype, device=a.device)
    checked("affected", **own, text=a.text, text_field=a.text_field, text_split=a.text_split)
    checked("affected", model=a.model, revision=a.revision)
    name = str(load.weights(a.model).parent) if a.model in load.ARMS else a.model
    options = dict(revision=a.revision, trust_remote_code=a.remote_code == a.model)
    settings = load.read_config(a.model, name, options)
    print(*verdicts(settings), "", sep="\n", flush=True)
    print(*measured(a), sep="\n")
    print(INSTEAD.format(coefficient=max(coefficients(settings).values()) or 0.01))
