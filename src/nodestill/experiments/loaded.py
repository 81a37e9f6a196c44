"""A finished model, from its run folder alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from nodestill.data import ImageSet
from nodestill.errors import DataError
from nodestill.experiments.members import build_model
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.experiments.plain import from_plain
from nodestill.experiments.recipe import Role
from nodestill.experiments.records import experiments_named
from nodestill.experiments.scoring import scored
from nodestill.experiments.store import RunFolder, Store


class Loaded(NamedTuple):
    """A model as it is scored: its weights, evaluation mode, frozen, f in float32."""

    model: nn.Module
    class_names: tuple[str, ...]
    recipe: dict[str, Any]  # content of recipe.json


def load_run(folder: RunFolder, device: torch.device) -> Loaded:
    """Load a finished model.

    Raises:
        DataError: If the folder is not finished, or a file is missing or damaged.
    """
    if not folder.is_done:
        raise DataError(f"{folder.path} holds no finished model. Run its recipe to the end first.")
    recipe = folder.read("recipe.json", "role", "title", "dataset", "model", "seed", "class_names", "image_size")
    kind: type[TeacherRecipe | StudentRecipe] = TeacherRecipe if recipe["role"] == Role.TEACHER.value else StudentRecipe
    described = from_plain(kind, recipe["model"], f"{folder.path}/recipe.json: model")
    names = tuple(recipe["class_names"])
    model = build_model(described, recipe["seed"], len(names))
    folder.load_weights(model)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
    return Loaded(scored(model).eval().requires_grad_(False), names, recipe)


def find_run(store: Store, name: str) -> RunFolder:
    """Return the run folder that a name means: a run folder, an experiment (its distilled student), or experiment:role.

    Raises:
        DataError: If there is none; says what there is.
    """
    experiment, _, role = name.partition(":")
    if (store.root / name / "recipe.json").is_file():
        return store.folder(name)
    matching = experiments_named(store.root, experiment)
    if len(matching) != 1:
        known = ", ".join(matching or experiments_named(store.root, "*")) or "none"
        raise DataError(f"{store.root} holds no run {name!r}. Experiments there: {known}; see --store.")
    experiment = matching[0]
    folders = [store.folder(member) for member in store.folder(experiment).read("experiment.json", "members")["members"]]
    by_role = {folder.read("recipe.json", "role")["role"]: folder for folder in folders if folder.is_done}
    if (role or Role.DISTILLED.value) not in by_role:
        known = ", ".join(by_role) or "none"
        raise DataError(f"Experiment {experiment!r} has no finished {role or 'distilled'} model; it has: {known}.")
    return by_role[role or Role.DISTILLED.value]


def require_classes(folder: RunFolder, class_names: Sequence[str], data: ImageSet) -> None:
    """Raise `DataError` if images have other classes than a model."""
    if tuple(class_names) != data.class_names:
        raise DataError(
            f"{folder.path} knows {len(class_names)} classes ({', '.join(class_names[:3])}, ...), but {data.provenance} has "
            f"{data.num_classes} ({', '.join(data.class_names[:3])}, ...). Attack a model with images of its own classes."
        )
