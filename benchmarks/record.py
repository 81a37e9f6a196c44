"""The record: what the fast recipes reach, in which time, for how much arithmetic. Read from results/, whatever is there.

    nodestill run cifar10-fast --data DIR                              (and --seed 1 --name cifar10-fast-1, ...)
    nodestill solvers cifar10-fast --data DIR
    python results/collect.py runs cifar10-fast
    python benchmarks/record.py --rate                                 measure the machine, then print the table
    python benchmarks/record.py                                        only print

FLOP are 2 per multiply-accumulate, a backward pass counts as two forward passes, a teacher's lessons as forward passes; epochs
of smaller images, or of half the steps, count as what they are. The rate is that of bare 3x3 convolutions of 64 channels on
15x15 pictures in bfloat16, batch 250, forward and backward, all cores.
"""

import argparse
import json
import re
import statistics
from pathlib import Path

import torch
from torch import nn

from arithmetic import whole_epochs
from nodestill.experiments import from_plain
from nodestill.experiments.environment import environment
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from rows import keep, markdown, read, run_script
from solve_speed import seconds

RESULTS = Path(__file__).parent.parent / "results"
MACHINE = Path(__file__).parent / "results" / "machine.jsonl"
_RECIPES = ("cifar10-faster", "cifar10-fast", "svhn-fast")
_LAYERS, _CHANNELS, _SIZE, _BATCH = 4, 64, 15, 250


def convolution_rate(repeats: int = 15) -> list[float]:
    """Return GFLOP/s of convolutions and nothing else, one figure per repeat."""
    layers = nn.Sequential(*(nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1) for _ in range(_LAYERS)))
    layers = layers.to(memory_format=torch.channels_last)
    x = torch.randn(_BATCH, _CHANNELS, _SIZE, _SIZE).contiguous(memory_format=torch.channels_last).requires_grad_()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = layers(x)
        y.backward(torch.ones_like(y))

    step()
    flop = 6 * _LAYERS * _BATCH * _SIZE**2 * 9 * _CHANNELS**2
    return [flop / seconds(step) / 1e9 for _ in range(repeats)]


def measured_rate() -> dict:
    """Return a row on this machine."""
    rates = convolution_rate()
    spread = {"gflops": statistics.median(rates), "range": [min(rates), max(rates)]}
    return {"what": "convolutions, bfloat16", **spread, "environment": environment(torch.device("cpu"))}


def account(folder: Path) -> dict:
    """Return what one experiment reached and spent."""
    listed = json.loads((folder / "experiment.json").read_text())
    runs = {run["recipe"]["role"]: run for run in map(_run, (folder / name for name in listed["members"]))}
    teacher, student = runs["teacher"], runs["distilled"]
    views = [run["recipe"]["train_images"] * _whole_epochs(run["recipe"]) for run in (teacher, student)]
    macs = [run["evaluation"]["cost"]["macs"] for run in (teacher, student)]
    return {
        "recipe": folder.name,
        "seed": listed["recipe"]["seed"],
        "epochs": len(student["training"]),
        "clean": student["evaluation"]["clean"],
        "teacher": teacher["evaluation"]["clean"]["accuracy"],
        "minutes": sum(row["seconds"] for row in read(folder / "commands.jsonl")) / 60,
        "flop": 6 * views[0] * macs[0] + 6 * views[1] * macs[1] + 2 * _asked(student) * macs[0],
        "share_of_f": student["evaluation"]["cost"]["macs_in_f"] / macs[1],
        "parameters": student["evaluation"]["cost"]["parameters"],
        "solvers": _of_most_images(student["solvers"]),
        "data": student["recipe"]["provenance"],
    }


def _whole_epochs(recipe: dict) -> float:
    """Return how many epochs of whole images and all steps cost as much as a training."""
    kind = TeacherRecipe if recipe["role"] == "teacher" else StudentRecipe
    return whole_epochs(from_plain(kind, recipe["model"]), (3, *recipe["image_size"]), len(recipe["class_names"]))


def _asked(student: dict) -> int:
    """Return how many images the teacher was asked about: every view, or each image and its mirror image once."""
    recipe, epochs = student["recipe"], len(student["training"])
    if not recipe["model"]["distillation"].get("once", False):
        return recipe["train_images"] * epochs
    return recipe["train_images"] * (2 if recipe["model"]["training"]["augment"]["flip"] else 1)


def _of_most_images(rows: list[dict]) -> list[dict]:
    """Return one row for each solver and data set."""
    ordered = sorted(rows, key=lambda row: row["images"])
    return list({(row["name"], row["data"]): row for row in ordered}.values())


def _run(folder: Path) -> dict:
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("recipe", "evaluation")}
    return found | {"training": read(folder / "training.jsonl"), "solvers": read(folder / "solvers.jsonl")}


def accuracy_table(accounts: list[dict]) -> str:
    """Return accuracy, time and arithmetic of each run."""
    heads = [
        "Run",
        "Accuracy",
        "95 % interval",
        "Lossless images",
        "Flips averaged",
        "Teacher",
        "Minutes",
        "PFLOP",
        "f's share",
    ]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for found in accounts:
        clean, own = found["clean"], {r["data"]: r for r in found["solvers"] if r["name"] == "own"}
        flips = next((r for r in found["solvers"] if "flips" in r["name"] and r["data"] in found["data"]), None)
        lossless = next((r for data, r in own.items() if "lossless" in data), None)
        interval = f"{100 * clean['accuracy_low']:.2f} to {100 * clean['accuracy_high']:.2f}"
        cells = [_percent(lossless), _percent(flips), f"{100 * found['teacher']:.2f}", f"{found['minutes']:.1f}"]
        cells += [f"{found['flop'] / 1e15:.2f}", f"{found['share_of_f']:.0%}"]
        lines.append([f"{found['recipe']}, seed {found['seed']}", f"{100 * clean['accuracy']:.2f}", interval, *cells])
    return markdown(lines)


def solver_table(accounts: list[dict]) -> str:
    """Return the accuracy of each run under other solvers."""
    lines = [["Run", "Data", "Scored under", "Accuracy", "Change", "NFE"], ["---", "---", "---", *["---:"] * 3]]
    for found in accounts:
        for row in found["solvers"]:
            cells = [_percent(row), f"{100 * row['difference']:+.2f}", f"{row['evaluations']:.1f}"]
            lines.append([f"{found['recipe']}, seed {found['seed']}", row["data"], row["name"], *cells])
    return markdown(lines)


def _percent(row: dict | None) -> str:
    return "–" if row is None else f"{100 * row['accuracy']:.2f}"


def accounts() -> list[dict]:
    """Return the accounts of all runs of fast recipes that are kept."""
    one_of = re.compile(rf"({'|'.join(_RECIPES)})(-\d{{1,3}})?")  # the number is a seed
    return [account(folder) for folder in sorted(RESULTS.iterdir()) if folder.is_dir() and one_of.fullmatch(folder.name)]


def main() -> None:
    """Parse, measure the machine if asked, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", action="store_true", help="measure the rate of convolutions first")
    options = parser.parse_args()
    if options.rate:
        keep([measured_rate()], MACHINE, ("what",))
    for row in read(MACHINE):
        print(f"{row['what']}: {row['gflops']:.0f} GFLOP/s ({row['range'][0]:.0f} to {row['range'][1]:.0f})\n")
    found = accounts()
    print(accuracy_table(found), solver_table(found), sep="\n\n")


if __name__ == "__main__":
    run_script(main)
