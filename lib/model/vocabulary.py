"""Tokenizers: trained for the embedded model, or read as a model's own, with what it begins a text
by.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lib.model import corpus

SIZE = 8192  # entries of the embedded model's


class TokenizerError(ValueError):
    """A tokenizer that cannot be read, in one line."""


def train(documents: list[corpus.Document]) -> Tokenizer:
    """Train the byte-level BPE vocabulary on the training split."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=[corpus.END_OF_TEXT],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator((doc.text for doc in documents), trainer, length=len(documents))
    return made


def local(folder: Path) -> Tokenizer:
    """The tokenizer.json of a folder, beginning texts as tokenizer_config.json says, if there is
    one; without it as tokenizer.json does, or, where that has no rule, with an end-of-text token.
    """
    file, told = folder / "tokenizer.json", folder / "tokenizer_config.json"
    try:
        found = Tokenizer.from_buffer(file.read_bytes())
    except Exception as error:  # the library raises its errors as these
        raise TokenizerError(f"tokenizer.json: is no tokenizer: {error}") from None
    if not told.is_file():
        return found
    try:
        says = json.loads(told.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"tokenizer_config.json: must be JSON: {error}") from None
    bos = says.get("bos_token") if isinstance(says, dict) else 0
    name = bos.get("content") if isinstance(bos, dict) else bos
    if not isinstance(name, str | None):
        raise TokenizerError(
            "tokenizer_config.json: bos_token must be a text, or an object with it"
        )
    return beginning(found, name if says.get("add_bos_token", True) else None)


def beginning(tokenizer: Tokenizer, bos: str | None) -> Tokenizer:
    """The tokenizer with the rule that a text begins with `bos` (None: with nothing), unless its
    own rule puts a token there already.
    """
    own = tokenizer.post_processor
    number = None if bos is None else tokenizer.token_to_id(bos)
    if own is not None and (number is None or corpus.start(tokenizer)):
        return tokenizer
    named = [] if number is None else [(bos, number)]
    whole = [*(name for name, _ in named), "$A"]
    rule = processors.TemplateProcessing(single=whole, special_tokens=named)
    keeps = isinstance(own, processors.ByteLevel | processors.Sequence)  # where tokens lie
    tokenizer.post_processor = processors.Sequence([own, rule]) if keeps else rule
    return tokenizer
