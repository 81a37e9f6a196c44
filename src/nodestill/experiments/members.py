"""The models of an experiment, each with the folder that its settings alone decide."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from nodestill.data import DataIdentity
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.experiments.plain import fingerprint, to_plain
from nodestill.experiments.recipe import Recipe, Role
from nodestill.models import ConvDynamics, discrete_twin, node_classifier, resnet
from nodestill.models.normalize import NO_MEAN, NO_STD
from nodestill.ode.tableaus import tableau
from nodestill.training import Training

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Member:
    """One model of an experiment.

    Args:
        role: What it is there.
        model: How it is built and trained.
        dataset: Name of the data set.
        data: Which data it really is.
        seed: Of weights, order and augmentation.
        teacher: Folder of the teacher, for a distilled model.
    """

    role: Role
    model: TeacherRecipe | StudentRecipe
    dataset: str
    data: DataIdentity
    seed: int
    teacher: str | None = None

    @property
    def training(self) -> Training:
        """How it is trained."""
        return self.model.training

    @property
    def title(self) -> str:
        """What it is called in print."""
        if isinstance(self.model, TeacherRecipe):
            return f"ResNet-{self.model.depth}"
        if self.model.twin:
            return "discrete twin"
        return f"NODE({self.model.t1:g})" if self.model.t1 else "stem only"

    @cached_property
    def folder(self) -> str:
        """Name of its run folder: readable, and different whenever anything that it depends on is."""
        kind = "teacher" if self.role is Role.TEACHER else "student"
        what = self.title.lower().replace("(", "").replace(")", "").replace("-", "").replace(" ", "-")
        taught = "" if self.role is Role.TEACHER else ("-kd" if self.teacher else "-labels")
        key = fingerprint(self.model, self.dataset, self.data.key, self.seed, self.teacher)
        return f"{kind}-{self.dataset}-{what}{taught}-{key}"

    def description(self) -> dict[str, Any]:
        """Return what goes into recipe.json."""
        plain = to_plain(self) | {"provenance": self.data.provenance, "data": self.data.key}
        return {**plain, "title": self.title, "folder": self.folder}


def members(recipe: Recipe, data: DataIdentity) -> list[Member]:
    """Return the models of a recipe, teacher first."""
    teacher = Member(Role.TEACHER, recipe.teacher, recipe.dataset.value, data, recipe.seed)
    found = [teacher]
    for role, student in recipe.students().items():
        taught_by = teacher.folder if student.distillation is not None else None
        found.append(Member(role, student, recipe.dataset.value, data, recipe.seed, taught_by))
    return found


def build_model(
    recipe: TeacherRecipe | StudentRecipe, seed: int, num_classes: int, mean: Channels = NO_MEAN, std: Channels = NO_STD
) -> nn.Module:
    """Build a model with fresh weights, a function of the seed alone.

    Args:
        recipe: What to build.
        seed: Of the weights.
        num_classes: Classes to tell apart.
        mean: Mean of each colour over the training images, pixels in [0, 1].
        std: Deviation of each colour, likewise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(recipe, TeacherRecipe):
            return resnet(recipe.depth, num_classes, width=recipe.width, mean=mean, std=std)
        return _twin(recipe, num_classes, mean, std) if recipe.twin else _node(recipe, num_classes, mean, std)


def _node(recipe: StudentRecipe, num_classes: int, mean: Channels, std: Channels) -> nn.Module:
    dynamics = [_dynamics(recipe, channels) for channels in (recipe.channels, *recipe.further)]
    for f in dynamics:
        # Without a solve no loss reaches f, and processes would wait for its gradient.
        f.requires_grad_(recipe.t1 > 0 and not recipe.frozen)
    return node_classifier(
        recipe.stem,
        dynamics,
        solver=recipe.solver,
        num_classes=num_classes,
        mean=mean,
        std=std,
        pooling=recipe.pooling,
    )


def _twin(recipe: StudentRecipe, num_classes: int, mean: Channels, std: Channels) -> nn.Module:
    count = recipe.blocks or tableau(recipe.solver.method).stages * (recipe.solver.steps or 0)  # the recipe has one of them
    blocks = [[_dynamics(recipe, channels) for _ in range(count)] for channels in (recipe.channels, *recipe.further)]
    return discrete_twin(recipe.stem, blocks, num_classes=num_classes, mean=mean, std=std, pooling=recipe.pooling)


def _dynamics(recipe: StudentRecipe, channels: int) -> ConvDynamics:
    return ConvDynamics(
        channels,
        layers=recipe.layers,
        norm=recipe.norm,
        activation=recipe.activation,
        t1=recipe.t1,
        zero_last=recipe.zero_last,
        scale=recipe.f_scale,
        pre_activation=recipe.pre_activation,
    )
