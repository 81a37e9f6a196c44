"""Write docs/robustness-of-neural-odes.md: the paper's claims on robustness beside what was measured. Measures nothing.

python benchmarks/robustness_page.py
"""

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from scipy.stats import binomtest

import attack_sweep
import robustness_claims as claims
from nodestill.intervals import wilson_interval
from nodestill.models import Norm
from rows import markdown, read
from trained import TRAINING_IMAGES

DOCS = Path(__file__).parent.parent / "docs"
PAGE, FIGURE = DOCS / "robustness-of-neural-odes.md", DOCS / "images" / "robustness-of-neural-odes.svg"
HORIZONS = ("NODE(1)", "NODE(10)", "NODE(100)")
Rows = dict[tuple[str, str], dict]  # by model and variant


def curve(row: dict) -> list[str]:
    """Return who survives at 0 and at each radius, image by image."""
    return [row["right"], *[row["robust"][str(eps)] for eps in claims.RADII]]


class Pair(NamedTuple):
    """How two rows compare at a radius: images, how many survive under each, under one alone, and the exact p-value."""

    eps: int
    images: int
    one: int
    other: int
    only_one: int
    only_other: int
    p: float

    @classmethod
    def of(cls, eps: int, chosen: list[tuple[str, str]]) -> "Pair":
        """Count the pairs of bits of the images that are compared."""
        both, first, second = (chosen.count(pair) for pair in (("1", "1"), ("1", "0"), ("0", "1")))
        p = float(binomtest(first, first + second).pvalue) if first + second else 1.0
        return cls(eps, len(chosen), both + first, both + second, first, second, p)


def pairs(one: dict, other: dict, among: str | None = None) -> list[Pair]:
    """Return the comparison of two rows at 0 and at each radius, on the images that are ones in `among`, or on all."""
    curves = zip((0, *claims.RADII), curve(one), curve(other), strict=True)
    chosen = among or "1" * len(one["right"])
    return [Pair.of(eps, [(x, y) for x, y, z in zip(a, b, chosen, strict=True) if z == "1"]) for eps, a, b in curves]


def compared(one: dict, other: dict, heads: tuple[str, str], among: str | None = None) -> str:
    """Return a sentence on two rows and the table that it is made from."""
    found = pairs(one, other, among)
    if not any(pair.only_one or pair.only_other for pair in found):
        return f"**No image differs**: of {found[0].images} the same survive under both at every radius."
    names = ["ε", "Images", *[f"{word}: {head}" for word in ("Robust", "Only") for head in heads], "p"]
    lines = [[f"{pair.eps}/255", *[str(number) for number in pair[1:6]], f"{pair.p:.2g}"] for pair in found]
    return said(found[1:], heads) + "\n\n" + markdown([names, ["---", *["---:"] * 6], *lines])


def said(found: list[Pair], heads: tuple[str, str]) -> str:
    """Return what the radii above zero say together; at one of several a small p comes more easily (Bonferroni)."""
    clearest = min(found, key=lambda pair: pair.p)
    kept = f"at {clearest.eps}/255 {heads[0]} leaves {clearest.one} of {clearest.images}, {heads[1]} {clearest.other}"
    p = min(1.0, len(found) * clearest.p)
    times = f"p = {p:.2g}, {len(found)} radii allowed for"
    return f"**They differ**: {kept} ({times})." if p < 0.05 else f"**Not told apart** by these images: {kept} ({times})."


def both_right(one: dict, other: dict) -> str:
    """Return the images that two models both classify right, as ones and zeros."""
    return "".join("1" if x == y == "1" else "0" for x, y in zip(one["right"], other["right"], strict=True))


def plateau_table(rows: Rows) -> str:
    """Return what could make accuracy level off at the widest radius: units, classes, failures, the attack."""
    heads = ["Model", "Variant", f"Robust at {claims.RADII[-1]}/255, %", "95 % interval", "Classes among them", "Failed solves"]
    lines = [heads, ["---", "---", *["---:"] * 4]]
    for (model, variant), row in rows.items():
        bits = curve(row)[-1]
        low, high = wilson_interval(bits.count("1"), len(bits))
        classes = {label for label, bit in zip(row["labels"], bits, strict=True) if bit == "1"}
        failed = "–" if variant == "sound" else str(row["failed"])
        share = f"{100 * low:.1f}–{100 * high:.1f}"
        lines.append([model, variant, f"{claims.percent(bits):.1f}", share, str(len(classes)), failed])
    return markdown(lines)


def cost_table(rows: Rows) -> str:
    """Return the evaluations of f on clean images and on those of the widest radius."""
    heads = ["Model", "Clean, mean", "Clean, most", "Attacked, mean", "Attacked, most"]
    lines = [heads, ["---", *["---:"] * 4]]
    for (model, variant), row in rows.items():
        if variant == "exact":
            counts = (row["clean_evaluations"], row["evaluations"])
            lines.append([model, *[f(c) for c in counts for f in (lambda c: f"{sum(c) / len(c):.1f}", lambda c: str(max(c)))]])
    return markdown(lines)


_STYLES = {  # curves that coincide show through each other
    "exact": ("C0", "-"),
    "adjoint": ("C1", "--"),
    "rescaled": ("C2", ":"),
    "normalised": ("C3", "-."),
    "sound": ("C4", "-"),
}


def draw(rows: Rows) -> None:
    """Draw a panel per model: robust accuracy against ε, by variant."""
    models = list(dict.fromkeys(model for model, _ in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(3.2 * len(models), 3), sharey=True, squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        for variant in claims.VARIANTS:
            if (model, variant) in rows:
                shares = [claims.percent(bits) for bits in curve(rows[model, variant])]
                color, line = _STYLES[variant]
                axis.plot([0, *claims.RADII], shares, line, color=color, marker="o", markersize=3, label=variant)
        axis.set(title=model, xlabel="ε in 1/255")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("still right, %")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    with plt.rc_context({"svg.hashsalt": "nodestill"}):  # the same rows, the same file
        figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


def page(rows: Rows) -> str:
    """Return the page: fixed words around tables made from rows."""
    distilled, labels = (rows[name, "exact"] for name in ("distilled", "undistilled"))
    sound, sound_labels = (rows[name, "sound"] for name in ("distilled", "undistilled"))
    first, last = HORIZONS[0], HORIZONS[-1]
    words = ("distilled", "undistilled")
    machine = distilled["environment"]
    return TEMPLATE.format(
        machine=f"{machine['device']}, PyTorch {machine['torch']}",
        data=distilled["data"],
        seen=", ".join(f"{count:,}" for count in TRAINING_IMAGES[Norm.GROUP].values()),
        overview=claims.table(list(rows.values())),
        overstated=compared(distilled, sound, ("the paper's protocol", "the worst case")),
        distilled=compared(distilled, labels, words, both_right(distilled, labels)),
        distilled_sound=compared(sound, sound_labels, words, both_right(sound, sound_labels)),
        horizon=compared(rows[last, "exact"], rows[first, "exact"], (last, first), _common(rows, last, first)),
        horizon_sound=compared(rows[last, "sound"], rows[first, "sound"], (last, first), _common(rows, last, first)),
        rescaled="\n\n".join(_between(rows, name, "exact", "rescaled") for name in HORIZONS[1:]),
        adjoint="\n\n".join(_between(rows, name, "adjoint", "exact") for name in HORIZONS),
        plateau=plateau_table(rows),
        normalised="\n\n".join(_between(rows, name, "normalised", "exact") for name in HORIZONS),
        cost=cost_table(rows),
        speed=attack_sweep.table(read(attack_sweep.RESULTS)),
    )


def _common(rows: Rows, one: str, other: str) -> str:
    return both_right(rows[one, "exact"], rows[other, "exact"])


def _between(rows: Rows, model: str, one: str, other: str) -> str:
    return f"{model}:\n\n" + compared(rows[model, one], rows[model, other], (one, other))


TEMPLATE = """# Are Neural ODEs robust?

Every table here is made from rows in `benchmarks/results` by `python benchmarks/robustness_page.py`; the rows by

```bash
python benchmarks/attacked_models.py --data DIR       # the models, once
python benchmarks/robustness_claims.py --data DIR
python benchmarks/attack_sweep.py --data DIR
```

Data: {data}, the first test images, as many as the tables say. Machine: {machine}. The models are small and trained for minutes
(`benchmarks/attacked_models.py`): they show mechanisms, not the paper's accuracies. *distilled* and *undistilled* are a NODE(1)
of 64 channels, five epochs each. NODE(1), NODE(10) and NODE(100) saw labels only, and the longer the horizon the fewer of them
({seen} images, once), because a step costs more: they are undertrained, and what they decide on robustness against
horizon is little. One training each, so a difference between two models may be one between two seeds. p is that of the exact
sign test on the images that survive under one alone.

![Robust accuracy against the radius](images/robustness-of-neural-odes.svg)

Variants: *exact* is the paper's protocol with gradients of the steps taken; *adjoint* the same with gradients of the adjoint
equation; *rescaled* the model with its horizon made 1 and f multiplied by it; *normalised* the radius counted in units of the
colours' deviation; *sound* the worst case over PGD, MI-FGSM, Auto-PGD, minimum norm and Square.

{overview}

## What does the paper's protocol overstate?

The same student, the paper's two attacks scored at their last iterates, against the worst case over all attacks and iterates.
It can only be lower, so how much is the question:

{overstated}

## Does distillation make a student robust?

Chu et al. say so. Compared here on the images that both students classify right, so at equal clean accuracy; by the paper's
protocol:

{distilled}

And by the worst case:

{distilled_sound}

## Does the horizon?

These models cannot answer: too few images are classified right by both. What can be compared, by the paper's protocol:

{horizon}

The worst case:

{horizon_sound}

y' = f(t, y) on [0, T] is the same function as y' = T f(T t, y) on [0, 1], so a horizon by itself is no mechanism. The same
weights, attacked with the horizon rescaled:

{rescaled}

## Adjoint against exact gradients

More survivors under *adjoint* would be survivors of a worse gradient, not of a better model. Where the tolerance is loose
against what f does they occur (a planted model in `tests/subjects/test_adjoint_is_caught.py`); on these, at 1e-3:

{adjoint}

## What makes accuracy level off?

The paper's Table 3 stays at 20 % from 16/255 to 20/255, for a model without any defence. What could do that here: a radius in
normalised units; a class that everything collapses to; solves that fail; an attack that does not find what is there.

{plateau}

A radius that was meant in pixels and applied in normalised units is about a quarter of what it claims, and holds the curve up
where it should have fallen to nothing. It can only be higher, so how much is the question:

{normalised}

Can an attack, while it fools, make the solver work? Evaluations of f on clean images and on those of PGD at the widest radius:

{cost}

## How fast

The distilled student, PGD and MI-FGSM at ε = 1 ... 20; `python benchmarks/attack_sweep.py --data DIR`. *plain* is torchdiffeq
with backpropagation, one attack per radius; *chu2022* our solver under the same protocol; *sound* here our worst case
restricted to PGD and MI-FGSM; *full* all attacks that need no other model. Times are medians over parts of 128 images, ratios
medians of the ratios of parts, with their range. The worst case saves most where images fall early: a robust model costs more.

{speed}
"""


def main() -> None:
    """Read, draw, write."""
    rows = {(row["model"], row["variant"]): row for row in sorted(read(claims.RESULTS), key=lambda row: row["images"])}
    ordered = {(m, v): rows[m, v] for m in claims.names() for v in claims.VARIANTS if (m, v) in rows}
    draw(ordered)
    PAGE.write_text(page(ordered))


if __name__ == "__main__":
    main()
