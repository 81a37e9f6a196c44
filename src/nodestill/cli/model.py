"""Commands on a trained model: attack it, audit it, solve it otherwise, let it classify files. And on data: verify."""

from pathlib import Path

from nodestill.cli.common import DEFAULTS, Common, Whole, watched_workspace
from nodestill.printing import show_audit, show_hunted, show_robustness, show_solvers, show_splits
from nodestill.terminal import console, show_table


def attack(
    model: str,
    *,
    eps: str | None = None,
    attacks: str | None = None,
    images: Whole | None = None,
    protocol: str = "chu2022",
    batch_size: Whole = 250,
    dataset: str | None = None,
    common: Common = DEFAULTS,
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
    with watched_workspace(common) as workspace:
        attacked = experiments.attacked_model(model, workspace, dataset)
        asked = experiments.asked_attack(changes, images, batch_size, attacked)
        key = experiments.attack_model(attacked, asked, workspace)
    show_robustness(attacked.folder.rows("robustness.jsonl"), key)
    show_hunted(attacked.folder.rows("sound.jsonl"), key)
    console.print(f"Rows: {attacked.folder.path / 'robustness.jsonl'}", soft_wrap=True)


def audit(
    model: str,
    *,
    tier: str = "quick",
    eps: Whole | None = None,
    checks: str | None = None,
    fail_on: str | None = None,
    dataset: str | None = None,
    batch_size: Whole = 64,
    seed: Whole = 0,
    out: Path | None = None,
    common: Common = DEFAULTS,
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
        Which checks, as planted,gradient-paths, and no curves; all, and the curves, if not given.
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
    with watched_workspace(common) as workspace:
        attacked = experiments.attacked_model(model, workspace, dataset)
        audited = experiments.audit_model(attacked, asked, workspace.watch)
    show_audit(attacked.folder, audited, out)
    experiments.require_verdict(audited, limit)


def solvers(model: str, *, images: Whole | None = None, common: Common = DEFAULTS) -> None:
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
    with watched_workspace(common) as workspace:
        data = load_image_set(dataset, Split.TEST, common.data)
        rows = experiments.score_solvers(folder, data if images is None else data.first(images), workspace)
    show_solvers(rows)
    console.print(f"Rows: {folder.path / 'solvers.jsonl'}", soft_wrap=True)


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
