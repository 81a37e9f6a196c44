"""Recipes, and the runs made from them."""

from nodestill.experiments.paper import published, recipe_named, recipes
from nodestill.experiments.plain import fingerprint, from_plain, to_plain, with_override
from nodestill.experiments.recipe import Distillation, Recipe, RobustnessRecipe, Role, StudentRecipe, TeacherRecipe
from nodestill.experiments.records import Experiment, RunRecords, read_experiment, read_run
from nodestill.experiments.stages import Stage, Workspace, run
from nodestill.experiments.store import RunFolder, Store

__all__ = [
    "Distillation",
    "Experiment",
    "Recipe",
    "RobustnessRecipe",
    "Role",
    "RunFolder",
    "RunRecords",
    "Stage",
    "Store",
    "StudentRecipe",
    "TeacherRecipe",
    "Workspace",
    "fingerprint",
    "from_plain",
    "published",
    "read_experiment",
    "read_run",
    "recipe_named",
    "recipes",
    "run",
    "to_plain",
    "with_override",
]
