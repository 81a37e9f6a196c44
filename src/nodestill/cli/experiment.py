"""Commands on experiments: list recipes, run one, reproduce the paper, write reports."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nodestill.cli.common import DEFAULTS, Common, Whole, quiet_workspace, watched_workspace
from nodestill.printing import show_recipes, show_report
from nodestill.terminal import console, seconds_of

Override = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]


def demo(*, out: Path = Path("runs"), threads: Whole = 1, debug: bool = False) -> None:
    """Tell the whole story on scikit-learn's handwritten digits: teacher, distilled Neural ODE, attack, report.

    Parameters
    ----------
    out
        Folder to keep runs in.
    threads
        CPU threads. Images of 8x8 pixels are too small to share among several.
    debug
        Show tracebacks.
    """
    _run("demo", (), "robustness", Common(store=out, device="cpu", threads=threads, debug=debug))


def run(recipe: str, *overrides: Override, until: str = "robustness", common: Common = DEFAULTS) -> None:
    """Run a recipe: train teacher, student and controls, attack them, write the report. Goes on where it was stopped.

    Any field of the recipe can be changed: --student.channels 64 --student.training.epochs 3 --seed 1. See `nodestill
    recipes --show NAME` for the fields.

    Parameters
    ----------
    recipe
        Name of a recipe, or a .toml file: base = "cifar10-smoke" and the fields to change.
    until
        Last stage: teacher, student or robustness.
    """
    _run(recipe, overrides, until, common)


def recipes(*, show: str | None = None, debug: bool = False) -> None:
    """List the recipes.

    Parameters
    ----------
    show
        Print every field of this recipe instead, as JSON.
    debug
        Show tracebacks.
    """
    from nodestill import experiments

    if show is not None:
        console.print_json(data=experiments.to_plain(experiments.recipe_named(show)))
        return
    show_recipes()


def report(
    *experiments_: Annotated[str, Parameter(name="experiment")],
    out: Path | None = None,
    store: Path = Path("runs"),
    debug: bool = False,
) -> None:
    """Write the report of experiments, or of a grid of `nodestill reproduce`, again, from their rows.

    Parameters
    ----------
    experiments_
        Names of experiments or of grids, as reproduce-cifar10-cpu; all experiments in the store if not given.
    out
        Where to write it, for a single experiment; else NAME/report.html in the store.
    store
        Folder that keeps runs.
    debug
        Show tracebacks.
    """
    from nodestill.errors import InputError
    from nodestill.experiments.records import finished_experiments

    names = list(experiments_) or finished_experiments(store)
    if not names:
        raise InputError(
            f"{store} holds no experiment with a finished model. Run a recipe first, or name its folder with --store."
        )
    if out is not None and len(names) > 1:
        raise InputError(f"--out names one file, but there are {len(names)} experiments. Name one: {', '.join(names)}.")
    for name in names:
        show_report(store, name, out)


def reproduce(
    part: str,
    *,
    dataset: str = "cifar10",
    scale: str = "cpu",
    seeds: Whole | None = None,
    engine: str = "local",
    jobs: Whole | None = None,
    rows: Path | None = None,
    dry_run: bool = False,
    common: Common = DEFAULTS,
) -> None:
    """Reproduce the paper: its tables and its figure, with the controls it left out. Goes on where it was stopped.

    First it prints the plan: how many models, what is done, and how long the rest will take on this machine.

    Parameters
    ----------
    part
        table1, table2, table3, figure1, controls, claims or all.
    dataset
        cifar10 or svhn.
    scale
        smoke (digits, minutes), cpu, gpu, or paper (to the letter).
    seeds
        Trainings of every model, with seeds 0, 1, ... If not given, the scale's number for the cells that are compared most
        closely, and one for the others.
    engine
        local (processes of this machine) or ray (a cluster that shares the store).
    jobs
        Models at a time, each with --threads threads of its own (1 if not given). If not given, all cores; on a GPU, one.
    rows
        Folder of kept rows, if not results: what is finished in ROWS/reproduce-DATASET-SCALE is not computed again.
    dry_run
        Print the plan and stop.
    """
    from nodestill.cli.reproducing import Ways
    from nodestill.cli.reproducing import reproduce as work_through
    from nodestill.reproduction import asked_reproduction

    asked = asked_reproduction(part, dataset, scale, seeds)
    limit = None if common.max_time is None else seconds_of(common.max_time)
    ways = Ways(engine, jobs, common.threads or 1, _kept(rows, asked.name), dry_run, limit, common.device)
    work_through(asked, quiet_workspace(common), ways)


def _kept(rows: Path | None, grid: str) -> Path:
    from nodestill.errors import InputError

    if rows is not None and not (rows / grid).is_dir():
        raise InputError(f"--rows must be a folder that holds {grid}, and {rows} does not. Leave it out for results.")
    return rows or Path("results")


def _run(name: str, overrides: Sequence[str], until: str, common: Common) -> None:
    from nodestill import experiments

    recipe = experiments.asked_recipe(name, overrides, ["until", *(option.name for option in fields(Common))])
    stage = experiments.from_plain(experiments.Stage, until, "--until")
    with watched_workspace(common) as workspace:
        changed = experiments.run(recipe, workspace, stage)
    show_report(common.store, recipe.name, always=changed)
