"""Every number that decides a verdict, and how hard each tier tries."""

from nodestill.attacks.audit.tier import Tier

QUICK = Tier(
    "quick",
    images=64,
    steps=10,
    restarts=3,
    apgd_steps=20,
    targets=2,
    minimum_norm_steps=40,
    queries=100,
    noise=20,
    resolution=0.05,
)
STANDARD = Tier("standard", images=512, steps=20, restarts=5, apgd_steps=50, targets=3, minimum_norm_steps=100, queries=1000, noise=100)  # fmt: skip  # noqa: E501
FULL = Tier("full", images=None, steps=50, restarts=10, apgd_steps=100, targets=9, minimum_norm_steps=200, queries=5000, noise=1000)  # fmt: skip  # noqa: E501
TIERS = {tier.name: tier for tier in (QUICK, STANDARD, FULL)}

# Shares of images. Two attacks of equal strength differ by less than 1 % of the images. A tier too small to tell such a share
# from none decides at its resolution: `Case.limit`.
STRONGER_PATH = 0.01  # fooled along another path of the gradient, but not along the native one
STRONGER_PATH_WARN = 0.003
TRANSFERRED = 0.01  # fooled by images made on another model, but not by the white-box attack
TRANSFERRED_WARN = 0.002  # AutoAttack's constant for black-box attacks (Croce and Hein 2020)
PROTOCOL_GAP = 0.05  # robust under the protocol chu2022, but not in the worst case
PROTOCOL_GAP_WARN = 0.01
LEFT_UNBOUNDED = 0.01  # right at a radius that admits every image
STRONGER_BUDGET = 0.01  # fooled with more steps or restarts
STRONGER_LOSS = 0.01  # fooled along another loss
DEAD_GRADIENT = 0.01  # surviving images without a usable gradient
COUPLED = 0.01  # images that change with their batch, of a model said to classify each by itself
SAME_ANSWER = 0.01  # images whose logits are those of another image, bit for bit
COLLAPSED = 0.6  # of the survivors in two classes

# Logits.
DETERMINISTIC = 1e-6  # relative difference of two passes over the same batch; above it a warning
NONDETERMINISTIC = 1e-4  # as in AutoAttack; above it a failure
BATCH_COUPLING = 1e-3  # relative difference of an image's logits alone and in a batch

# Gradients.
COSINE_PASS, COSINE_LOW_PASS, COSINE_FAIL = 0.98, 0.9, 0.9  # median, 5th percentile, median
REALISED_PASS, REALISED_FAIL = 0.8, 0.5  # realised over predicted gain of one step of 1/255, median
CONVERGED = 0.9  # median cosine with the gradient at a tight tolerance
LEAK = 0.01  # of the other images' losses into an image's gradient, relative to its own
REACH = 0.6  # of the pixels of the median survivor end on the face of the box

# Solver.
HORIZON = 2.0  # difference from the rescaled model, in errors of the solver
LATENCY_PASS, LATENCY_FAIL = 2.0, 3.0  # 99th percentile of evaluations under attack, over the clean one

PLANTABLE = 0.9  # of the images must have something to plant
PLANTED = 0.95  # of planted adversarial images that the attack must find
