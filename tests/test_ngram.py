"""The bar: an interpolated 5-gram model against its definition."""

import itertools
import lzma

import numpy as np
import pytest
import torch

from lib.model import corpus, ngram


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    steps = np.random.default_rng(0).choice([1, 1, 1, 2, 5], 30_000)
    return torch.from_numpy(np.cumsum(steps) % 23)


def test_probabilities_sum_to_one_after_seen_and_unseen_contexts(text):
    model = ngram.fit(text, 23)
    for context in ([0, 1, 2, 3], [5, 5, 5, 5], [22, 1, 22, 1]):
        rows = [torch.tensor([*context, w]) for w in range(23)]
        total = sum(float((-ngram.nats(model, row)[-1]).exp()) for row in rows)
        assert total == pytest.approx(1, abs=1e-9)


def test_it_learns_what_there_is_to_learn(text):
    model = ngram.fit(text[:25_000], 23)
    entropy = -(0.6 * np.log(0.6) + 2 * 0.2 * np.log(0.2))
    reached = float(ngram.nats(model, text[25_000:]).mean())
    assert entropy < reached < entropy + 0.2 < np.log(23)


def test_bigram_against_a_direct_computation():
    """Interpolated modified Kneser-Ney, order 2, worked out with dictionaries."""
    text = [int(x) for x in np.random.default_rng(1).integers(0, 5, 60) ** 2 % 7]
    model = ngram.fit(torch.tensor(text), 7, highest=2)
    pairs = list(itertools.pairwise(text))
    before = {w: len({a for a, b in pairs if b == w}) for w in range(7)}
    low, high = model.orders
    d1, d2 = low.discount.tolist(), high.discount.tolist()

    def unigram(w):
        total = sum(before.values())
        mass = sum(d1[min(c, 3)] for c in before.values() if c) / total
        return max(before[w] - d1[min(before[w], 3)], 0) / total + mass / 7

    def bigram(a, w):
        after = [b for x, b in pairs if x == a]
        count = after.count(w)
        mass = sum(d2[min(after.count(b), 3)] for b in set(after)) / len(after)
        return max(count - d2[min(count, 3)], 0) / len(after) + mass * unigram(w)

    for a, w in {(a, w) for a, _ in pairs for w in range(7)}:
        assert float((-ngram.nats(model, torch.tensor([a, w]))[-1]).exp()) == pytest.approx(
            bigram(a, w), rel=1e-9
        )


def test_xz_is_what_the_library_says():
    documents = [
        corpus.Document("a", "x", "c", "text " * 50),
        corpus.Document("b", "x", "c", "more " * 50),
    ]
    size = len(lzma.compress(("text " * 50 + "more " * 50).encode(), preset=9))
    assert ngram.xz_bits_per_byte(documents) == {"x": 8 * size / 500}
