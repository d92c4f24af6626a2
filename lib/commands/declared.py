"""What was declared before the runs on other checkpoints: the numbers of every protocol.

The page "What was declared beforehand" shows this file and says in words what each number is for;
the driver of the runs and the readers of their results take them from here.
"""

from __future__ import annotations

# The weights of a changed assignment: per strategy the policy that its authors define.  "native" is
# the router's own rule at the new experts; it is also the default where authors leave it open or
# have no router (random, round_robin, hashed).
WEIGHTS = {
    "native": "native",
    "random": "native",
    "round_robin": "native",
    "hashed": "native",
    "drop": "native",
    "drop_position": "native",
    "expanded_drop": "native",
    "reroute": "native",
    "optimal": "native",
    "sinkhorn": "native",
    "biased": "native",
    "expert_choice": "native",
    "least_loaded": "native",
    "threshold": "native",
    "activate_fewer": "native",
}
POLICIES = ("native", "mass", "rank")  # the first is the primary one

# The checkpoints: pairs of models that differ in the balance loss alone.
SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)  # of initialisation and data order; the embedded pair has 0
COEFFICIENT = 0.01  # of the Switch loss, per layer, in the second model of a pair
STEPS = 960  # optimizer steps of each model
BATCH_SEQUENCES, SEQUENCE_TOKENS = 128, 512  # of one step: 62.9 million tokens in all
LEARNING_RATE = 2e-3  # peak; warm-up and cosine as for the embedded pair
STRIDE = 3  # every third training document, in the order of the manifest: about 22 million tokens
FRACTIONS = (
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
)  # of the training of the first seed, at which it is profiled
LEAST = 8  # checkpoints (or pairs) below which nothing is said of checkpoints in general

# The profile: H1 and what domains share.
PROFILE_TOKENS = 512  # tokens of every held-out document, from its beginning
SERVING_TOKENS, SERVING_BATCHES = 4096, 64  # batches in which its router is also counted
LOCALITY = 0.5  # H1: margin of Φ
LOCALITY_DRAWS = 2000  # permutations of whole clusters over domains
PYTHON = "python"  # the domain within which H1 is repeated by package

# H2a and H5: the prefix protocol on all held-out documents that are long enough.
PREFIX_TOKENS = 256  # tokens of a document; the first half is its prompt, the second is scored
GAMMAS = (1.0, 1.25, 1.5)  # capacity factors of dropping and re-routing

# H2b: one decode step of many sequences.
WINDOW = 128  # tokens of a sequence; disjoint windows of one document are separate sequences
WINDOWS_PER_DOMAIN = 256  # five domains: groups of 1,280 tokens, one per position
TARGET = 1.25  # × the P95 of max/nominal that a perfect router has in the same groups
TARGET_DRAWS = 2000  # groups of a perfect router, of which that P95 is taken
FIT_STEPS = 600  # steps in which the bias is fitted, its step falling linearly to 0
FIT_RATE = 0.004  # its first step, in units of a router probability
FIT_SEQUENCES = 32  # training sequences of SEQUENCE_TOKENS per step: 9.8 million tokens in all
BIAS_SCALES = (0.25, 0.5, 0.75, 1.0, 1.25)  # multiples of the fitted bias
DECODE_GAMMAS = (1.25, 1.5, 2.0)  # of strategies with a capacity
TEMPERATURES = (0.3, 1.0)  # of Sinkhorn
AMONG = (3, 4, 8)  # candidates of the least loaded

# H3: repairs of the unbalanced checkpoint of each seed, on the setting of the fine-tuning chapter.
MARGIN = 0.005  # nats per token within which two losses count as equal
REPAIRS = {
    "none": (0.0,),
    "switch": (0.1, 0.17),
    "entropy": (0.3, 0.55),
    "gini": (0.3, 0.55),
}

# Cheaper repairs of the same checkpoints, told without a test: what is trained (all weights, the
# routers' alone, a bias beside weights that stay), loss, coefficient (of the bias: a multiple of
# the one fitted as for H2b), and the learning rate over that of the fine-tuning chapter.
CHEAP = (
    ("all", "none", 0.0, 1.0),
    ("all", "switch", 0.1, 1.0),
    *(("routers", "switch", value, rate) for rate in (1.0, 10.0) for value in (0.1, 1.0, 10.0)),
    ("bias", "bias", 0.5, 0.0),
    ("bias", "bias", 1.0, 0.0),
)
CHEAP_SEEDS = 4  # of `SEEDS`, the first

# Other sizes: pairs of 4 and of 113 million parameters, and of .7 billion.
SIZE_SEEDS = 3  # of `SEEDS`, the first
FRESH_SEEDS = 5  # those after them, of 4 and of 113 million alone

# H5: where the pairs' difference must be found again.
PRICE_GAMMA = 1.25  # capacity factor at which the price of balancing is taken
TRANSFER_SHAPES = ((8, 1), (8, 2), (32, 4), (64, 8))  # (experts, k); the pairs have (16, 2)
TRANSFER_SHARE = 0.5  # of the embedded pair's difference, which another shape must show at least
TRANSFER_LEAST = 3  # shapes of these four in which it must

# H4 and H6b: a fresh run of the measuring.
FRESH_SEED = 17  # of `notebooks/gpu.sh measure`; recordings made before have 0
FEW_TOKENS, MANY_TOKENS = 64, 256  # tokens per device: at most, and at least

# H6a: a placement against a frozen bias, on the groups of H2b.
DEVICES = 8  # expert-parallel devices; half as many where that leaves one expert a device
BIAS_COST = 0.005  # nats per token that the bias may cost, on the validation clusters
PLACED_SCALES = tuple(number / 50 for number in range(1, 21))  # multiples of the fitted bias
PLACED_LAYER = "OLMoE-1B-7B"  # whose hidden size and expert width a layer has, on measured cards

FAMILY = ("H1", "H2a", "H2b", "H3", "H4", "H5", "H6a", "H6b")  # Holm's, one p-value each
