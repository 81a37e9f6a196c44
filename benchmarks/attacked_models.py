"""Which models do `attack_sweep.py` and `robustness_claims.py` attack?

    python benchmarks/attacked_models.py --data DIR

NODE(1), NODE(10) and NODE(100) of `trained.py`, and a pair: the NODE(1) of the recipe cifar10-smoke (64 channels, two
convolutions in f, no norm), trained for five epochs, taught by a ResNet-20 and on labels alone. The pair is made once, in a
quarter of an hour on two cores, and kept in benchmarks/.models/pair. All are solved by dopri5 at 1e-3 in float32.
"""

import argparse
from pathlib import Path

import torch

from nodestill.data import Dataset, Split, identify, load_image_set
from nodestill.experiments.loaded import load_run
from nodestill.experiments.members import members
from nodestill.experiments.paper import recipe_named
from nodestill.experiments.plain import with_overrides
from nodestill.experiments.recipe import Recipe, Role
from nodestill.experiments.stages import Stage, run
from nodestill.experiments.store import Store
from nodestill.experiments.workspace import Workspace
from nodestill.models import NeuralODEClassifier, Norm
from nodestill.ode import GradientMode, Solver, calibrated
from trained import HORIZONS, MODELS, trained

PAIR = {"distilled": Role.DISTILLED, "undistilled": Role.UNDISTILLED}
_CALIBRATION_IMAGES = 32


def pair_recipe() -> Recipe:
    """Return how the pair is trained."""
    changes = {"name": "pair", "controls": "undistilled", "student.training.epochs": "5", "undistilled.epochs": "5"}
    return with_overrides(recipe_named("cifar10-smoke"), list(changes.items()))


def names() -> list[str]:
    """Return what the models are called."""
    return [*PAIR, *[f"NODE({horizon:g})" for horizon in HORIZONS]]


def attacked_model(name: str, data: Path) -> NeuralODEClassifier:
    """Return a model by name, frozen, in evaluation mode; trained now if it has not been."""
    if name in PAIR:
        model = _of_pair(PAIR[name], data)
    else:
        model = trained(next(h for h in HORIZONS if name == f"NODE({h:g})"), Norm.GROUP, data)
    return model.eval().requires_grad_(False).with_solver(Solver(gradient=GradientMode.DIRECT))


def with_first_step(model: NeuralODEClassifier, data: Path) -> NeuralODEClassifier:
    """Return the model with its first step calibrated on training images, as one would deploy it."""
    images = load_image_set(Dataset.CIFAR10, Split.TRAIN, data).first(_CALIBRATION_IMAGES).images.float().div(255)
    with torch.no_grad():
        y0 = model.encode(images)
    return model.with_solver(calibrated(model.dynamics, y0, 0.0, model.t1, model.solver))


def _of_pair(role: Role, data: Path) -> NeuralODEClassifier:
    recipe, store = pair_recipe(), Store(MODELS / "pair")
    run(recipe, Workspace(store, data_root=data, accelerator="cpu", watch=_say), until=Stage.STUDENT)
    found = next(m for m in members(recipe, identify(recipe.dataset, data)) if m.role is role)
    return load_run(store.folder(found.folder), torch.device("cpu"))[0]


def _say(task: str, done: int, total: int, note: str) -> None:
    if done % 100 == 0:
        print(f"  {task}: {done} of {total} {note}", flush=True)


def main() -> None:
    """Make the models that are not there yet and say what they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in names():
        model = attacked_model(name, options.data)
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {model.solver}", flush=True)


if __name__ == "__main__":
    main()
