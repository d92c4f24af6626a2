"""Results of fine-tuning runs with values that can be followed by hand."""

from lib.balance.study import Job, Study

STUDY = Study(
    coefficients={"none": [0.0], "switch": [0.3, 0.1], "entropy": [0.1], "max": [0.1]},
    training_seeds=2,
    training_strides=[3, 5],
    model="embedded",
    finetune_steps=4,
    finetune_sequences=2,
    sequence_tokens=100,
    finetune_learning_rate=1e-4,
    documents_per_domain=2,
    tokens_per_document=32,
    batch_tokens=64,
    seed=0,
)


CLUSTERS = 9  # one document each, of 10 tokens


def documents(nats):
    """Each document a cluster, its nats per token spread around the mean."""
    number = range(CLUSTERS)
    return {
        "names_sha256": "a",
        "count": CLUSTERS,
        "tokens": 10 * CLUSTERS,
        "cluster": [*number],
        "sizes": [10] * CLUSTERS,
        "nats": [10 * nats + place - CLUSTERS // 2 for place in number],
        "correct": [4] * CLUSTERS,
    }


def result(nats, violation):
    """Two layers of two experts; the second step of the curve is more even than the first."""
    layers = {
        "max_violation_p95": [violation - 0.1, violation + 0.1],
        "gini": [0.1, 0.3],
        "router_entropy": [1.0, 2.0],
        "specialisation": [0.5, 0.1],
    }
    speeds = (1e3, 5e3, 2e3)
    return {
        "diverged": "",
        "held_out": {
            "nats_per_token": nats,
            "layers": layers,
            "load": [[6, 2], [3, 5]],
            "documents": documents(nats),
            "training_tokens": 1000,
        },
        "curve": [
            {"step": step, "tokens_per_s": speed, "gini_0": 1 / (step + 1), "gini_1": 0.5}
            for step, speed in enumerate(speeds)
        ],
        "provenance": {"device": "abacus"},
    }


def queue(gaps):
    """Switch from (4, 2.0) through (2, 2.1) to (1, 2.3); entropy reaches 1.5 and costs `gaps` more
    there.
    """
    found = {Job("start", 0.0, 0): result(1.9, 4) | {"curve": []}}
    for seed, gap in enumerate(gaps):
        found[Job("none", 0.0, seed)] = result(2.0 + seed, 4)
        found[Job("switch", 0.1, seed)] = result(2.1 + seed, 2)
        found[Job("switch", 0.3, seed)] = result(2.3 + seed, 1)
        found[Job("entropy", 0.1, seed)] = result(2.2 + seed + gap, 1.5)
        found[Job("max", 0.1, seed)] = result(2.0 + seed, 3)
    return found
