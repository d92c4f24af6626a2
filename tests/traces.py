"""Traces made by hand, for tests of what is said of them."""

import numpy as np

from lib.routing import trace


def made(index, document, domain=None, cluster=None, experts=4, token=None, names=None):
    """A trace from [layers, tokens, k] and the document of each token."""
    document = np.asarray(document)
    n = document.max() + 1
    domain = np.zeros(n, int) if domain is None else np.asarray(domain)
    starts = np.searchsorted(document, np.arange(n))
    return trace.Trace(
        expert_index=np.asarray(index, dtype=np.uint8),
        document=document,
        position=np.arange(len(document)) - starts[document],
        domain=domain[document],
        token=np.zeros(len(document), int) if token is None else np.asarray(token),
        cluster=np.arange(n) if cluster is None else np.asarray(cluster),
        domains=np.array(names or [f"d{i}" for i in range(domain.max() + 1)]),
        clusters=np.arange(n).astype(str),
        experts=experts,
        model="made",
    )


def random(layers: int = 3, documents: int = 20, tokens: int = 20) -> trace.Trace:
    """A trace of a router that chooses 2 of 4 experts by chance, documents in two domains."""
    index = np.random.default_rng(0).random((layers, documents * tokens, 4)).argsort(2)[:, :, :2]
    return made(index, np.repeat(np.arange(documents), tokens), domain=np.arange(documents) % 2)
