"""The report of an audit: one HTML file that needs nothing else, and the same as Markdown and JSON beside it."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodestill.experiments.records import AuditRecords
from nodestill.report.canvas import COLORS, INK, MUTED, PANEL, name, panels, svg, whole_numbers
from nodestill.report.formats import NOTHING, attack_name, count, duration, interval, percent, radius
from nodestill.report.page import replace_file, template
from nodestill.report.tables import Table

if TYPE_CHECKING:
    import matplotlib.figure

_PICTURES = 24
_SAID = {
    "pass": "Nothing that was tried refutes these numbers. That is no proof: a stronger attack may exist.",
    "warn": "No check refutes these numbers, but some say what must be known before they are used.",
    "inconclusive": "These images do not decide every check, or the attack does not work here: no number may be believed yet.",
    "fail": "At least one check shows that a robustness number of this model is wrong. Find the cause before you use it.",
}


def write_audit_report(audit: AuditRecords, out: Path | None = None) -> Path:
    """Write the report of an audit as HTML, Markdown and JSON.

    Args:
        audit: What the folder of the model says.
        out: The HTML file, or a folder; None for `audit.html` in the model's folder.

    Returns:
        Where the HTML file is.

    Raises:
        DataError: If the files cannot be written.
    """
    out = audit.path if out is None else out
    path = out if out.suffix == ".html" else out / "audit.html"
    replace_file(path.with_suffix(".md"), audit_markdown(audit))
    replace_file(path.with_suffix(".report.json"), json.dumps(audit_plain(audit), indent=1, ensure_ascii=False) + "\n")
    replace_file(path, template("audit.html.j2").render(_content(audit)))
    return path


def audit_plain(audit: AuditRecords) -> dict[str, Any]:
    """Return everything that the report says, as plain values."""
    curves = [{"eps_255": eps, "chu2022": paper, "sound": worst, "gap": gap} for eps, paper, worst, gap in _curves(audit)]
    return {
        **audit.summary,
        "checks": audit.checks,
        "curves": curves,
        "survivors_by_class": {str(row["eps_255"]): row["survivors"] for row in _by_radius(audit.worst)},
    }


def audit_markdown(audit: AuditRecords) -> str:
    """Return the report as Markdown, without pictures."""
    summary = audit.summary
    parts = [
        f"# Audit of {summary['title']}: {summary['verdict'].upper()}",
        f"{_SAID[summary['verdict']]}",
        _setting(audit),
        "## Checks",
        checks_table(audit).to_markdown(),
        "## Accuracy under attack",
        curves_table(audit).to_markdown(),
        "## Survivors by class",
        survivors_table(audit).to_markdown(),
        "## What each attack added",
        hunted_table(audit.hunted).to_markdown(),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def checks_table(audit: AuditRecords) -> Table:
    """Return one row a check: what was measured, the limit, what it means."""
    rows = [_check_row(check) for check in audit.checks]
    keys = tuple(check["verdict"] or "" for check in audit.checks)
    return Table(("Check", "Verdict", "Measured", "Limit", "What it means"), tuple(rows), keys=keys, text_columns=5)


def _check_row(check: Mapping[str, Any]) -> tuple[str, ...]:
    if check["verdict"] is None:
        return check["name"], "not run", NOTHING, NOTHING, "The model does not offer what this check needs."
    measured = f"{check['measured']:.3g} {check['unit']}"
    return check["name"], check["verdict"].upper(), measured, f"{check['limit']:.3g}", check["meaning"]


def curves_table(audit: AuditRecords) -> Table:
    """Return accuracy against radius under both protocols, and their gap."""
    rows = tuple(
        (radius(eps), _share(paper), _share(worst), NOTHING if gap is None else f"{100 * gap:.1f}")
        for eps, paper, worst, gap in _curves(audit)
    )
    notes = (
        "chu2022: the lower of the robust accuracies under the paper's two attacks, each scored at its last iterate. "
        "sound: right, and no attack ever fooled it at that radius or a smaller one. Gap in points. 95 % Wilson intervals.",
    )
    return Table(("Radius", "chu2022", "sound", "Gap"), rows, notes)


def _share(row: Mapping[str, Any] | None) -> str:
    return NOTHING if row is None else f"{percent(row['robust_accuracy'])} ({interval(row['low'], row['high'])})"


def _curves(audit: AuditRecords) -> list[tuple[int, dict | None, dict | None, float | None]]:
    """Return radius, the paper's and the worst case's robust accuracy with interval, and the gap between them."""
    worst = {row["eps_255"]: _point(row) for row in audit.worst}
    paper: dict[int, dict] = {}
    for row in audit.paper:
        here = paper.get(row["eps_255"])
        if here is None or row["robust_accuracy"] < here["robust_accuracy"]:
            paper[row["eps_255"]] = _point(row)
    found = []
    for eps in sorted({*worst, *paper}):
        both = eps in worst and eps in paper
        gap = paper[eps]["robust_accuracy"] - worst[eps]["robust_accuracy"] if both else None
        found.append((eps, paper.get(eps), worst.get(eps), gap))
    return found


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    from nodestill.intervals import wilson_interval

    low, high = wilson_interval(row["robust"], row["images"])
    return {"robust_accuracy": row["robust_accuracy"], "low": low, "high": high, "images": row["images"]}


def survivors_table(audit: AuditRecords) -> Table:
    """Return how many images of each class nothing fooled, by radius."""
    rows = tuple((radius(row["eps_255"]), *[count(number) for number in row["survivors"]]) for row in _by_radius(audit.worst))
    return Table(("Radius", *audit.summary["class_names"]), rows)


def hunted_table(hunted: Sequence[Mapping[str, Any]]) -> Table:
    """Return what each attack of the protocol sound added, attack by attack."""
    order = list(dict.fromkeys(row["attack"] for row in hunted))
    rows = tuple(
        (
            attack_name(row["attack"]),
            radius(row["eps_255"]),
            count(row["attacked"]),
            count(sum(eps <= row["eps_255"] for eps in row["radii_255"])),
            count(row["unconfirmed"]),
            count(row["failed_images"]),
            f"{row['gradient_calls']:.1f}",
            duration(row["seconds"]),
        )
        for row in sorted(hunted, key=lambda row: (order.index(row["attack"]), row["eps_255"]))
    )
    notes = (
        "Unconfirmed: fooled along the path of the gradient, but not the model as deployed; not counted. "
        "Failed: without finite logits; they count as fallen.",
    )
    headers = ("Attack", "Radius", "Attacked", "Fell", "Unconfirmed", "Failed", "Gradients per image", "Time")
    return Table(headers, rows, notes)


def _by_radius(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["eps_255"])


def _setting(audit: AuditRecords) -> str:
    summary = audit.summary
    kin = f" Relatives: {', '.join(summary['kin'])}." if summary["kin"] else " No relatives to transfer from."
    tier = summary["asked"]["tier"]
    missing = (
        "" if audit.paper or audit.worst else " No curves: only some checks were asked for; without --checks they are made."
    )
    failed = f" A curve could not be made: {summary['failed']}" if summary["failed"] else missing
    return (
        f"Data: {summary['data']}, the first {count(summary['images'])} test images. Tier {tier['name']}; checks at radius "
        f"{radius(summary['eps_255'])}; {tier['steps']} steps of the native attack; seed {summary['asked']['seed']}."
        f"{kin}{failed}"
    )


def curves_figure(audit: AuditRecords) -> "matplotlib.figure.Figure":
    """Draw both protocols' accuracy against radius, with Wilson bands; the area between them is what one overstates."""
    figure, (axes,) = panels(1, (1.35 * PANEL[0], PANEL[1]))
    found = _curves(audit)
    paper, worst = [(eps, point) for eps, point, _, _ in found], [(eps, point) for eps, _, point, _ in found]
    shown = (("chu2022", paper, COLORS["undistilled"], "--"), ("sound", worst, COLORS["distilled"], "-"))
    for text, curve, color, dashes in shown:
        points = [(eps, point) for eps, point in curve if point is not None]
        if points:
            radii = [eps for eps, _ in points]
            low, high = [100 * p["low"] for _, p in points], [100 * p["high"] for _, p in points]
            axes.plot(radii, [100 * p["robust_accuracy"] for _, p in points], dashes, color=color, marker="o", ms=3, label=text)
            axes.fill_between(radii, low, high, color=color, alpha=0.16, lw=0)
    axes.axvline(audit.summary["eps_255"], color=MUTED, lw=1, ls=(0, (2, 3)), label="_checks")
    axes.set_ylim(-1.5, 101.5)
    whole_numbers(axes)
    name(axes, "Robust accuracy", "L∞ radius ε, in 1/255 (dotted: radius of the checks)", "accuracy, %")
    if found:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9.5)
    return figure


def _content(audit: AuditRecords) -> dict[str, Any]:
    summary = audit.summary
    return {
        "title": summary["title"],
        "verdict": summary["verdict"],
        "said": _SAID[summary["verdict"]],
        "setting": _setting(audit),
        "checks": [dict(zip(("name", "verdict", "measured", "limit", "meaning"), _check_row(c))) for c in audit.checks],
        "curves": curves_table(audit),
        "figure": svg(curves_figure(audit), "curves", "Robust accuracy against radius under both protocols")
        if _curves(audit)
        else "",
        "survivors": survivors_table(audit),
        "hunted": hunted_table(audit.hunted),
        "pictures": [_picture(path, summary["class_names"]) for path in audit.pictures[:_PICTURES]],
        "environment": json.dumps(summary["environment"], indent=1, ensure_ascii=False),
        "asked": json.dumps(summary["asked"], indent=1, ensure_ascii=False),
        "folder": audit.path.name,
    }


def _picture(path: Path, class_names: Sequence[str]) -> dict[str, str]:
    """Return a picture with what its name says: place, radius, attack, and whether it fools once rounded to bytes."""
    place, eps, *attack = path.stem.split("-")
    fools = path.stem.endswith("fools")
    how = "-".join(attack).removesuffix("-fools").removesuffix("-rounded-away")
    text = f"image {int(place)}, {eps.removeprefix('eps')}/255, {attack_name(how)}{'' if fools else ' (not once rounded)'}"
    return {"png": base64.b64encode(path.read_bytes()).decode(), "text": text}
