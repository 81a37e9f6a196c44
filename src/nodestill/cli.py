"""The command: parse, call, print. No logic."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from nodestill import __version__
from nodestill.printing import show_audit, show_recipes, show_report, show_robustness, show_solvers, show_splits
from nodestill.terminal import console, run_guarded, seconds_of, show_table, watching

app = App(
    name="nodestill",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `run_guarded` says what Ctrl-C leaves behind
    help="Train Neural ODE image classifiers by knowledge distillation, attack them, and see what the numbers mean.\n\n"
    "Start with `nodestill demo`: the whole story on bundled images, in minutes.",
)
data_app = App(name="data", help="Look at data sets.")
app.command(data_app)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command that computes.

    Parameters
    ----------
    store
        Folder that keeps runs; a finished part is never computed again.
    data
        Folder of data sets, as DIR/cifar10/{train,test}.parquet. Without it: the hub, downloaded once.
    device
        cpu, cuda, mps or auto.
    devices
        Processes that share a training, one per device.
    threads
        CPU threads; all cores if not given.
    max_time
        Stop after this time, such as 20m or 1h; the same command goes on later.
    debug
        Show tracebacks.
    """

    store: Path = Path("runs")
    data: Path | None = None
    device: str = "auto"
    devices: int = 1
    threads: int | None = None
    max_time: str | None = None
    debug: bool = False


Override = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
_DEFAULTS = Common()


@app.command
def demo(*, out: Path = Path("runs"), threads: int = 1, debug: bool = False) -> None:
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


@app.command
def run(recipe: str, *overrides: Override, until: str = "robustness", common: Common = _DEFAULTS) -> None:
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


@app.command
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


@app.command
def attack(
    model: str,
    *,
    eps: str | None = None,
    attacks: str | None = None,
    images: int | None = None,
    protocol: str = "chu2022",
    batch_size: int = 250,
    dataset: str | None = None,
    common: Common = _DEFAULTS,
) -> None:
    """Attack a model and print its accuracy at each radius.

    Parameters
    ----------
    model
        A run folder in the store, an experiment (its distilled student), experiment:role, as demo:teacher, or a model of your
        own: FILE.py:NAME, where NAME is a torch module or a function that returns one.
    eps
        Radii in 1/255, as 0,4,8; 0 to 20 if not given.
    attacks
        Which: pgd, mi-fgsm; under sound also apgd-ce, apgd-dlr, fmn, transfer, square. All of these if not given. Under
        sound also autoattack, to check ours with its maintainers' code (pip install 'nodestill[attacks]'): name it last.
    images
        Number of test images, from the first; all if not given.
    protocol
        Whose rules: chu2022, the paper's, or sound, the worst case over all attacks.
    batch_size
        Images attacked at a time.
    dataset
        Images of a model of your own: cifar10, svhn, digits or folder.
    """
    from nodestill import experiments

    changes = [("protocol", protocol)] + [
        (name, value) for name, value in (("eps_255", eps), ("attacks", attacks)) if value is not None
    ]
    with _workspace(common) as workspace:
        attacked = experiments.attacked_model(model, workspace, dataset)
        asked = experiments.asked_attack(changes, images, batch_size, attacked)
        key = experiments.attack_model(attacked, asked, workspace)
    show_robustness(attacked.folder.rows("robustness.jsonl"), key)
    console.print(f"Rows: {attacked.folder.path / 'robustness.jsonl'}", soft_wrap=True)


@app.command
def audit(
    model: str,
    *,
    tier: str = "quick",
    eps: int | None = None,
    checks: str | None = None,
    fail_on: str | None = None,
    dataset: str | None = None,
    batch_size: int = 64,
    seed: int = 0,
    out: Path | None = None,
    common: Common = _DEFAULTS,
) -> None:
    """Check whether a model's robustness may be believed: both curves, some twenty checks, a report.

    Goes on where it was stopped.

    Parameters
    ----------
    model
        A run folder in the store, an experiment (its distilled student), experiment:role, as demo:teacher, or a model of your
        own: FILE.py:NAME, where NAME is a torch module or a function that returns one.
    tier
        How hard to try: quick (64 images, minutes), standard (512) or full (all).
    eps
        Radius of the checks in 1/255. If not given, the one at which about half of the right images survive.
    checks
        Which checks, as planted,gradient-paths; all if not given.
    fail_on
        Exit with code 1 if a verdict is as grave as this: fail, inconclusive or warn.
    dataset
        Images of a model of your own: cifar10, svhn, digits or folder.
    batch_size
        Images attacked at a time; of a model whose images depend on their batch, the batch that it is deployed with.
    seed
        Of random starts.
    out
        Where to write the report: a folder or an .html file; the model's folder if not given.
    """
    from nodestill import experiments

    asked, limit = experiments.asked_audit(tier, eps, checks, batch_size, seed), experiments.asked_verdict(fail_on)
    with _workspace(common) as workspace:
        attacked = experiments.attacked_model(model, workspace, dataset)
        audited = experiments.audit_model(attacked, asked, workspace.watch)
    show_audit(attacked.folder, audited, out)
    experiments.require_verdict(audited, limit)


@app.command
def solvers(model: str, *, images: int | None = None, common: Common = _DEFAULTS) -> None:
    """Score a trained Neural ODE under other solvers: does its accuracy belong to the equation or to its solver?

    Parameters
    ----------
    model
        A run folder in the store, an experiment (its distilled student), or experiment:role.
    images
        Number of test images, from the first; all if not given.
    """
    from nodestill import experiments
    from nodestill.data import Dataset, Split, load_image_set

    folder = experiments.find_run(experiments.Store(common.store), model)
    dataset = experiments.from_plain(Dataset, folder.read("recipe.json", "dataset")["dataset"], f"{folder.path}: dataset")
    with _workspace(common) as workspace:
        data = load_image_set(dataset, Split.TEST, common.data)
        rows = experiments.score_solvers(folder, data if images is None else data.first(images), workspace)
    show_solvers(rows)
    console.print(f"Rows: {folder.path / 'solvers.jsonl'}", soft_wrap=True)


@app.command
def report(
    *experiments_: Annotated[str, Parameter(name="experiment")],
    out: Path | None = None,
    store: Path = Path("runs"),
    debug: bool = False,
) -> None:
    """Write the report of experiments again, from their rows.

    Parameters
    ----------
    experiments_
        Names of experiments; all in the store if not given.
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


@app.command
def reproduce(
    part: str,
    *,
    dataset: str = "cifar10",
    scale: str = "cpu",
    seeds: int | None = None,
    engine: str = "local",
    jobs: int | None = None,
    rows: Path = Path("results"),
    dry_run: bool = False,
    common: Common = _DEFAULTS,
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
        Trainings of each model, with seeds 0, 1, ...; the scale's number if not given.
    engine
        local (processes of this machine) or ray (a cluster that shares the store).
    jobs
        Models at a time, each with --threads threads of its own (1 if not given). If not given, all cores; on a GPU, one.
    rows
        Folder of kept rows: what is finished in ROWS/reproduce-DATASET-SCALE is not computed again.
    dry_run
        Print the plan and stop.
    """
    from nodestill import experiments
    from nodestill.reproducing import Ways
    from nodestill.reproducing import reproduce as work_through

    asked = experiments.asked_reproduction(part, dataset, scale, seeds)
    limit = None if common.max_time is None else seconds_of(common.max_time)
    ways = Ways(engine, jobs, common.threads or 1, rows, dry_run, limit, common.device)
    work_through(asked, _quiet_workspace(common), ways)


@app.command
def predict(model: str, *images: Path, store: Path = Path("runs"), debug: bool = False) -> None:
    """Classify image files with a trained model.

    Parameters
    ----------
    model
        A run folder in the store, an experiment (its distilled student), or experiment:role.
    images
        Image files of the size that the model was trained on.
    store
        Folder that keeps runs.
    debug
        Show tracebacks.
    """
    import torch

    from nodestill.experiments import Store, find_run, load_run
    from nodestill.experiments.predict import predict_files

    loaded = load_run(find_run(Store(store), model), torch.device("cpu"))
    rows = [[str(p.path), p.name, f"{p.probability:.1%}", p.evaluations] for p in predict_files(loaded, images)]
    show_table(["Image", "Class", "Probability", "NFE"], rows, words=2)


@data_app.command
def verify(dataset: str, *, data: Path | None = None, debug: bool = False) -> None:
    """Print counts, class balance, shapes and checksums of a data set.

    Parameters
    ----------
    dataset
        digits, cifar10, svhn or folder.
    data
        Folder of data sets; without it the hub's cache.
    debug
        Show tracebacks.
    """
    from nodestill.data import Dataset
    from nodestill.data import verify as summaries
    from nodestill.experiments.plain import from_plain

    show_splits(summaries(from_plain(Dataset, dataset, "The data set"), data))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code: 0 done, 1 a run failed, 2 a mistake of the caller."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    call = lambda: app(tokens, exit_on_error=False, print_error=False, result_action="return_value")  # noqa: E731
    sys.exit(run_guarded(call, debug="--debug" in tokens))


def _run(name: str, overrides: Sequence[str], until: str, common: Common) -> None:
    from nodestill import experiments

    recipe = experiments.asked_recipe(name, overrides)
    stage = experiments.from_plain(experiments.Stage, until, "--until")
    with _workspace(common) as workspace:
        changed = experiments.run(recipe, workspace, stage)
    show_report(common.store, recipe.name, always=changed)


def _workspace(common: Common) -> Any:
    from contextlib import contextmanager
    from dataclasses import replace

    workspace = _quiet_workspace(common)
    limit = None if common.max_time is None else seconds_of(common.max_time)

    @contextmanager
    def opened() -> Any:
        with watching(limit) as watch:
            yield replace(workspace, watch=watch)

    return opened()


def _quiet_workspace(common: Common) -> Any:
    import torch

    from nodestill.errors import InputError
    from nodestill.experiments import Store, Workspace
    from nodestill.experiments.plain import from_plain
    from nodestill.experiments.workspace import Accelerator

    if common.threads is not None:
        if common.threads < 1:
            raise InputError(f"--threads must be at least 1, got {common.threads}. Leave it out to use all cores.")
        torch.set_num_threads(common.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, on a GPU too
    accelerator = from_plain(Accelerator, common.device, "--device")
    return Workspace(Store(common.store), common.data, accelerator.value, common.devices)
