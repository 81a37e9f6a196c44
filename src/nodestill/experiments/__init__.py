"""Recipes, and the runs made from them."""

from nodestill.experiments.asked import asked_recipe
from nodestill.experiments.loaded import Loaded, find_run, load_run
from nodestill.experiments.paper import published, recipe_named, recipes
from nodestill.experiments.plain import fingerprint, from_plain, to_plain, with_overrides
from nodestill.experiments.recipe import Distillation, Recipe, RobustnessRecipe, Role, StudentRecipe, TeacherRecipe
from nodestill.experiments.records import Experiment, RunRecords, read_experiment, read_run
from nodestill.experiments.solvers import SolverRow, score_solvers, solver_rows
from nodestill.experiments.stages import Stage, Workspace, attack_key, attack_run, run
from nodestill.experiments.store import RunFolder, Store

__all__ = [
    "Distillation",
    "Experiment",
    "Loaded",
    "Recipe",
    "RobustnessRecipe",
    "Role",
    "RunFolder",
    "RunRecords",
    "SolverRow",
    "Stage",
    "Store",
    "StudentRecipe",
    "TeacherRecipe",
    "Workspace",
    "asked_recipe",
    "attack_key",
    "attack_run",
    "find_run",
    "fingerprint",
    "from_plain",
    "load_run",
    "published",
    "read_experiment",
    "read_run",
    "recipe_named",
    "recipes",
    "run",
    "score_solvers",
    "solver_rows",
    "to_plain",
    "with_overrides",
]
