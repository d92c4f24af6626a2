"""The text is the same for everyone: extraction, hashes, splits, refusals."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import data_script
from tokenizers import Tokenizer, models, pre_tokenizers

from lib.model import corpus, load

PYTHON = '''"""Module."""
def f():
    """One.

    Two.
    """
    return 1

class A:
    "Class."
'''
CATALOGUE = r"""msgid ""
msgstr "Content-Type: text/plain\n"

msgid "a"
msgstr "erste Zeile\n"
"zweite \"Zeile\""

#, fuzzy
msgid "b"
msgstr "falsch"

msgid "c"
msgid_plural "cs"
msgstr[0] "ein"
msgstr[1] "zwei"

msgid "d"
msgstr ""
"""


def test_extraction_by_hand():
    assert corpus.extract(PYTHON.encode(), "prose") == "Module.\n\nOne.\n\nTwo.\n\nClass."
    assert (
        corpus.extract(CATALOGUE.encode(), "messages") == 'erste Zeile\nzweite "Zeile"\nein\nzwei'
    )
    assert corpus.extract(b"a\r\nb", "python") == "a\nb"
    with pytest.raises(UnicodeDecodeError):
        corpus.extract(b"\xff\xfe\x00", "python")


def test_the_installation_holds_every_text_of_the_manifest():
    """But what varies with Python's version and torch's build."""
    rows = corpus.manifest()
    rows = rows[~rows.path.str.contains(corpus.VARIES)]
    part = pd.concat([rows[rows.split == "held-out"], rows[rows.split == "train"].iloc[::40]])
    documents = corpus.read(part)
    assert len(documents) == len(part) and {doc.domain for doc in documents} == set(rows.domain)


def test_clusters_are_never_split_and_domains_have_enough():
    rows = corpus.manifest()
    sides = rows[rows.split != "copy"].groupby(["domain", "cluster"]).split.nunique()
    assert (sides == 1).all()
    held_out = rows[rows.split == "held-out"].groupby("domain")
    assert len(held_out) >= 5 and (held_out.cluster.nunique() >= 8).all()
    assert not rows[rows.split != "copy"].duplicated("sha256").any()


def test_near_copies_are_found():
    text = "\n".join(f"line {i} of some text" for i in range(40))
    other = "\n".join(f"something else {i}" for i in range(40))
    rows = pd.DataFrame(
        dict(
            text=[text, text + "\nend", other],
            split=["train", "held-out", "held-out"],
            sha256=["1", "2", "3"],
        )
    )
    assert data_script("corpus_manifest").drop_copies(rows).tolist() == [
        "train",
        "copy",
        "held-out",
    ]


def test_a_difference_is_named_or_left_out():
    rows = corpus.manifest().query("split == 'held-out'").iloc[:3].copy()
    rows.iloc[1, rows.columns.get_loc("sha256")] = "0" * 64
    with pytest.raises(ValueError, match=rf"{rows.iloc[1].package}.*has SHA-256 .*allow_partial"):
        corpus.read(rows)
    assert len(corpus.read(rows, allow_partial=True)) == 2
    rows.iloc[0, rows.columns.get_loc("path")] = "no/such/file.py"
    with pytest.raises(ValueError, match="no/such/file.py is missing"):
        corpus.read(rows)
    with pytest.raises(ValueError, match="0 documents match"):
        corpus.read(rows.iloc[:2], allow_partial=True)
    with pytest.raises(FileNotFoundError, match="must be 'auto' or the path"):
        corpus.read(rows, source="nowhere.xz")


def test_training_text_that_varies_with_the_platform_is_left_out_and_said_so(tmp_path, monkeypatch):
    rows = corpus.manifest()
    varies = rows[rows.path.str.contains(corpus.VARIES)]
    assert set(varies.split) == {"train"} and 55 < len(varies) < 60
    part = rows.drop(varies.index).query("split == 'train'").iloc[:3]  # two vary from now on
    either = "|".join(re.escape(path) for path in part.path[:2])
    monkeypatch.setattr(corpus, "VARIES", re.compile(either))
    elsewhere = part.assign(sha256=["0" * 64, *part.sha256[1:]])
    with pytest.warns(UserWarning, match="1 training texts differ with the platform and are left"):
        assert len(corpus.read(elsewhere)) == 2
    with pytest.warns(UserWarning, match="1 training texts differ"):
        corpus.write_pack(elsewhere, tmp_path / "pack.xz")
    assert len(corpus.read(part.iloc[1:], source=str(tmp_path / "pack.xz"))) == 2
    with pytest.raises(ValueError, match="has SHA-256"):
        corpus.read(elsewhere.assign(split="held-out"))


def test_a_packed_file_gives_the_same_documents(tmp_path):
    rows = corpus.manifest().query("split == 'held-out'").iloc[::60]
    corpus.write_pack(rows, tmp_path / "pack.xz")
    assert corpus.read(rows, source=str(tmp_path / "pack.xz")) == corpus.read(rows)


def test_held_out_takes_clusters_in_turn_and_counts_bytes():
    tokenizer = load.tokenizer()
    few = corpus.held_out(6, 100, tokenizer)
    for domain in {doc.domain for doc in few}:
        part = [doc for doc in few if doc.domain == domain]
        assert len(part) == 6 and len({doc.cluster for doc in part}) == 6
    assert few == corpus.held_out(6, 100, tokenizer)
    for doc in few:
        assert len(doc.token_ids) <= 100 and doc.token_ids[0] == 0
        assert (
            doc.text.encode()[: doc.bytes]
            .decode(errors="ignore")
            .startswith(tokenizer.decode(list(doc.token_ids[1:-3])).rstrip("\ufffd"))
        )
    assert corpus.stream(few).dtype == np.uint16


def one(text):
    return corpus.Document("x", "d", "c", text)


def test_a_text_is_encoded_whole_even_where_its_tokens_are_long():
    spaces = " " * 2000  # one token, far longer than the cut that saves time elsewhere
    whole = corpus.encode([one(f"{spaces}a b c d")], long_words())[0]
    assert (
        corpus.encode([one(f"{spaces}a b c d")], long_words(), 4)[0].token_ids
        == (whole.token_ids[:4])
    )


def long_words():
    made = Tokenizer(models.WordLevel({"[U]": 0, "a": 1, "b": 2, "c": 3, "d": 4}, "[U]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def test_a_text_of_no_token_is_refused():
    silent = Tokenizer(models.BPE({"a": 0}, []))
    with pytest.raises(ValueError, match="corpus.encode: x: 0 tokens: must be at least one"):
        corpus.encode([one("b b")], silent)


def test_a_stream_holds_numbers_of_any_vocabulary():
    rows = [corpus.Document("x", "d", "c", "t", ids) for ids in ((1, 65_535), (65_536, 2))]
    assert corpus.stream(rows).tolist() == [1, 65_535, 65_536, 2]
    assert corpus.stream(rows[:1]).dtype == np.uint16


def test_the_summary_counts_the_manifest_and_its_shares_by_hand():
    table = corpus.summary()
    rows = corpus.manifest()
    assert table.documents.sum() == len(rows)
    assert table.megabytes.sum() * 1e6 == pytest.approx(rows.bytes.sum())
    small = pd.DataFrame(
        dict(
            split=["train", "held-out", "copy", "held-out", "train"],
            documents=[9, 2, 1, 1, 9],
            megabytes=[1.5, 1, 1, 1, 2.0],
        )
    )
    found = corpus.shares(small)
    assert found.to_dict() == dict(held_out_share_left=0.75, training_megabytes=3.5)
