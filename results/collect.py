"""Copy the rows of an experiment from a folder of runs into this one: python results/collect.py runs cifar10-smoke"""

import json
import shutil
import sys
from pathlib import Path

KEPT = ("recipe.json", "environment.json", "training.jsonl", "evaluation.json")
IF_THERE = ("robustness.jsonl", "solvers.jsonl")


def main(runs: Path, name: str) -> None:
    """Copy experiment.json, report.md and each member's rows; what was there before is replaced."""
    target = Path(__file__).parent / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    shutil.copy(runs / name / "experiment.json", target)
    shutil.copy(runs / name / "report.md", target)
    if (runs / name / "commands.jsonl").exists():
        shutil.copy(runs / name / "commands.jsonl", target)
    for member in json.loads((runs / name / "experiment.json").read_text())["members"]:
        (target / member).mkdir()
        for file in (*KEPT, *(file for file in IF_THERE if (runs / member / file).exists())):
            shutil.copy(runs / member / file, target / member)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
