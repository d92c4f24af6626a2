"""Text of the user's own is read as what it is, chosen in turns, and split without an overlap."""

import gzip
import json

import pandas as pd
import pytest

from lib.model import corpus, load, texts


def read(path, documents=99, **more):
    return [doc.text for doc in texts.read(str(path), documents, **more)]


def folder(path, files):
    """Files by name below a folder."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return str(path)


def part(text, name, documents=99):
    return texts.chosen(text, documents, field="text", split="test", part=name)


def test_a_chapter_s_text_is_held_out_or_the_user_s_own(tmp_path):
    (tmp_path / "one.txt").write_text("eins")
    own = part(str(tmp_path), "whole")
    assert [doc.text for doc in own] == ["eins"] and texts.weights(str(tmp_path)) == {}
    few = texts.chosen("held-out", 2, field="text", split="test")
    assert few == corpus.sample(2) and len(few) == 2 * len({doc.domain for doc in few})
    assert part("held-out", "whole", 2) == few
    assert part("held-out", "training", 2) == corpus.sample(2, split="train")
    train = corpus.manifest().query("split == 'train' and domain == 'python'")
    assert texts.weights("held-out")["python"] == train.bytes.sum()
    with pytest.raises(ValueError, match="part = 'trainig': must be one of held-out, training, wh"):
        part("held-out", "trainig")


def test_both_parts_of_own_text_share_no_text_and_hold_every_domain(tmp_path):
    files = {f"{d}/{i}.txt": f"{d} {i}" for d in "abc" for i in range(2 + ord(d) - ord("a"))}
    text = folder(tmp_path / "t", files | {"c/again.txt": "c 0", "a/foreign.txt": "b 1"})
    held, train = part(text, "held-out"), part(text, "training")
    both = [doc.text for doc in held + train]
    assert sorted(both) == sorted(set(files.values()))
    assert {doc.domain for doc in held} == {doc.domain for doc in train} == set("abc")
    # by content: other names and another order give the same parts
    renamed = {f"{text[0]}/{9 - int(text[2])}.txt": text for text in files.values()}
    again = folder(tmp_path / "u", renamed | {"c/zz.txt": "c 0", "a/zz.txt": "b 1"})
    for name, one in (("held-out", held), ("training", train)):
        assert {doc.text for doc in part(again, name)} == {doc.text for doc in one}


@pytest.mark.parametrize("name", ["held-out", "training"])
def test_one_document_has_no_parts_and_three_alone_have(tmp_path, name):
    text = folder(tmp_path / "one", {"a.txt": "eins", "b.txt": "eins"})
    with pytest.raises(ValueError, match=f"is one document: needs 2, .* for the {name} part"):
        part(text, name)
    assert part(folder(tmp_path / "three", {f"{d}/x.txt": d for d in "abc"}), name)


def test_domains_files_and_clusters_take_turns(tmp_path):
    files = {f"{d}/{i:02}.txt": f"{d} {i}" for d in "abc" for i in range(20)}
    found = texts.read(folder(tmp_path / "t", files), 12)
    assert {d: [doc.domain for doc in found].count(d) for d in "abc"} == dict(a=4, b=4, c=4)
    assert [doc.name for doc in found if doc.domain == "a"] != [f"a/{i:02}.txt" for i in range(4)]
    rows = {
        f"{n}.jsonl": "\n".join(
            json.dumps(dict(text=f"{n} {i}", cluster=i // 50)) for i in range(99)
        )
        for n in "xyz"
    }
    found = texts.read(folder(tmp_path / "u", rows), 6)
    places = {(doc.name[0], doc.cluster) for doc in found}
    assert places == {(n, c) for n in "xyz" for c in "01"}


def test_text_of_the_user_s_own(tmp_path):
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/deep/one.txt").write_text("eins")
    (tmp_path / "two.txt").write_text("zwei")
    (tmp_path / "empty.txt").write_text(" ")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config.txt").write_text("hidden")
    (tmp_path / ".hidden").write_bytes(b"\xff")
    found = sorted(texts.read(str(tmp_path), 5), key=lambda doc: doc.name)
    assert [(doc.name, doc.domain, doc.text) for doc in found] == [
        ("a/deep/one.txt", "a", "eins"),
        ("two.txt", tmp_path.name, "zwei"),
    ]
    assert read(tmp_path / "two.txt", 5) == ["zwei"]
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"body": "x", "domain": "d", "cluster": "c"}\n{"body": "y"}\n')
    found = sorted(texts.read(str(lines), 5, field="body"), key=lambda doc: doc.name)
    assert [(doc.domain, doc.cluster, doc.text) for doc in found] == [
        ("d", "c", "x"),
        ("rows", "rows.jsonl:2", "y"),
    ]
    assert len(texts.read(str(lines), 1, field="body")) == 1


ROWS = [{"text": "eins"}, {"text": "zwei\u2028drei"}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", LINES.encode()),
        ("x.JSONL", b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n\r\n").encode()),
        ("x.ndjson", f"\n{LINES}\n\n".encode()),
        ("x.json", json.dumps(ROWS, indent=1).encode()),
        ("lines.json", LINES.encode()),
        ("x.jsonl.gz", gzip.compress(mtime=0, data=LINES.encode())),
        ("x.csv", "id,text\n1,eins\n2,\"zwei\u2028drei\"\n3,\n".encode()),
        ("x.tsv", "text\tid\neins\t1\nzwei\u2028drei\t2".encode()),
        ("x.csv.GZ", gzip.compress(mtime=0, data="text\neins\nzwei\u2028drei\n".encode())),
    ],
)  # fmt: skip
def test_rows_are_read_as_what_they_are(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert sorted(read(tmp_path / name)) == ["eins", "zwei\u2028drei"]
    assert sorted(read(tmp_path)) == ["eins", "zwei\u2028drei"]


def test_a_table_in_parquet_and_a_text_in_gzip(tmp_path):
    pd.DataFrame(ROWS).assign(domain=["d", None]).to_parquet(tmp_path / "x.parquet")
    found = texts.read(str(tmp_path / "x.parquet"), 9)
    assert {(doc.domain, doc.text) for doc in found} == {("d", "eins"), ("x", "zwei\u2028drei")}
    (tmp_path / "x.parquet.gz").write_bytes(gzip.compress((tmp_path / "x.parquet").read_bytes()))
    assert read(tmp_path / "x.parquet.gz") == [doc.text for doc in found]
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(mtime=0, data="\ufeffvier".encode()))
    assert read(tmp_path / "x.txt.gz") == ["vier"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"ab\xff", r"x.txt: byte 2 is not UTF-8: the text must be"),
        ("x.txt", b"  ", r"x.txt'?: holds no text: at least one document must"),
        ("x.jsonl", b'{"other": 1}', r"line 1: must be an object with 'text', has 'other'"),
        ("x.jsonl", b"{", r"x.jsonl: line 1: must be an object with 'text': is no JSON"),
        ("x.json", b'["eins"]', r"x.json: line 1: must be an object with 'text'"),
        ("x.jsonl", b'{"text": "a"}\n{"text": null}', r"line 2: 'text' is null: must be a text"),
        ("x.jsonl", b'\n{"text": 5}', r"line 2: 'text' is int: must be a text"),
        (
            "x.jsonl",
            b'{"text": [{"role": "user", "content": "hi"}]}',
            r"line 1: 'text' is list: must be a text \(a chat: render it by its model's template\)",
        ),
        ("x.jsonl", b'{"text": "a", "domain": [1]}', r"line 1: 'domain' is list: must be a text"),
        ("x.jsonl", b'{"text": "\\ud800"}', r"line 1: 'text' is not UTF-8: must be"),
        ("x.csv", b"id,body\n1,a\n", r"x.csv: line 2: must be an object with 'text', has 'id'"),
        ("x.csv", b"id,text\n1,a, b\n", r"line 2: has more fields than the 2 of its head"),
        ("x.txt.gz", b"plain", r"x.txt.gz: is not whole gzip: must be, by its name"),
        ("x.txt.gz", gzip.compress(mtime=0, data=b"plain")[:-9], r"x.txt.gz: is not whole gzip"),
        ("x.parquet", b"PAR1", r"x.parquet: is not parquet: "),
    ],
)  # fmt: skip
def test_text_that_is_none_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        texts.read(str(tmp_path / name), 5)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        texts.read("./nowhere", 5)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none'?: holds no file: must hold some text"):
        texts.read(str(tmp_path / "none"), 5)


def test_a_data_set_is_read_as_a_stream_from_one_split(tmp_path, monkeypatch):
    """The hub's own library, here on a folder: what cannot be reached is one line."""
    import datasets

    (tmp_path / "test.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
    (tmp_path / "train.jsonl").write_text('{"text": "no"}\n')
    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **more: real(str(tmp_path), **more))
    assert sorted(read("owner/name", 9)) == ["x", "y"]
    with pytest.raises(ValueError, match="text = 'owner/name': row 0: must be an object with 'bod"):
        read("owner/name", 9, field="body")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no\nhub"))
    )
    with pytest.raises(
        OSError, match="text = 'owner/name': no such file, and not read as a data set: no$"
    ):
        texts.read("owner/name", 9)


def test_a_text_and_a_model_are_told_without_their_folders():
    assert texts.described("held-out") == "the held-out text of this book"
    assert texts.described("/some/where/mine.jsonl") == "the text mine.jsonl"
    assert texts.described("owner/name") == "the text owner/name"
    assert load.described("embedded") == "the two checkpoints of this book"
    assert load.described("/some/where/mine") == "the model mine"
