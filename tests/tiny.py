"""Recipes, image sets and jobs so small that a whole experiment takes seconds."""

from dataclasses import replace
from pathlib import Path

import torch

from nodestill.attacks import AttackName
from nodestill.data import Augment, DataIdentity, Dataset, ImageSet
from nodestill.experiments import Distillation, Recipe, RobustnessRecipe, Role, Store, StudentRecipe, TeacherRecipe
from nodestill.experiments.member_training import MemberTraining
from nodestill.experiments.members import Member
from nodestill.experiments.processes import silent
from nodestill.models import Norm, Stem
from nodestill.ode import Solver
from nodestill.ode.solver import Method
from nodestill.training import Optimizer, Training

SGD = Training(Optimizer.SGD, 0.05, 3, batch_size=16, weight_decay=1e-3, augment=Augment(crop_padding=1))
ADAM = replace(SGD, optimizer=Optimizer.ADAM, lr=0.01)
MUON = replace(SGD, optimizer=Optimizer.MUON, lr=0.02)
IDENTITY = DataIdentity("made by a test", "12345678")

# What makes the recipe `demo` last seconds, on a command line.
OVERRIDES = """
    --student.channels 4 --student.layers 1 --student.solver.method euler --student.solver.steps 2
    --student.training.epochs 1 --undistilled.epochs 1 --teacher.training.epochs 1 --teacher.depth 8 --teacher.width 2
    --robustness.images 20 --robustness.eps-255 0,8 --monitor-images 50
"""


def recipe(training: Training = ADAM, **changes) -> Recipe:
    """A recipe on digits: one epoch each, a handful of attacked images."""
    short = replace(training, epochs=1, batch_size=512)
    student = StudentRecipe(
        Stem.FLAT, 4, 1.0, Solver(Method.EULER, steps=2), short, Distillation(3.0, 0.9), layers=1, norm=Norm.NONE
    )
    whole = Recipe(
        name="tiny",
        dataset=Dataset.DIGITS,
        teacher=TeacherRecipe(8, short, width=2),
        student=student,
        undistilled=short,
        robustness=RobustnessRecipe(attacks=(AttackName.PGD,), eps_255=(0, 4), images=10, batch_size=10),
        monitor_images=20,
    )
    return replace(whole, **changes)


def images(count: int = 48, classes: int = 3, seed: int = 0) -> ImageSet:
    """Random 8x8 images in classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 60, (count, 3, 8, 8), generator=generator)
    pixels = (noise + labels[:, None, None, None] * 60).to(torch.uint8)
    return ImageSet("made", "made by a test", pixels, labels, tuple("abcdefghij"[:classes]))


def teacher(training: Training, width: int = 16) -> Member:
    """A ResNet-8 on `images`."""
    return Member(Role.TEACHER, TeacherRecipe(8, training, width=width), "digits", IDENTITY, 0)


def student(training: Training, taught_by: Member | None, t1: float = 1.0) -> Member:
    """An adaptively solved Neural ODE on `images`, distilled if there is a teacher."""
    kd = None if taught_by is None else Distillation(3.0, 0.9)
    settings = StudentRecipe(Stem.FLAT, 8, t1, Solver(), training, kd, layers=1, norm=Norm.GROUP)
    role = Role.UNDISTILLED if taught_by is None else Role.DISTILLED
    return Member(role, settings, "digits", IDENTITY, 0, None if taught_by is None else taught_by.folder)


def asked(root: Path, member: Member, taught_by: Member | None = None, watch=silent, count: int = 48) -> MemberTraining:
    """The training of a member on `images`."""
    return MemberTraining(member, taught_by, Store(root), images(count), images(30, seed=1), 10, watch)


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and bytes of every file below a folder."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
