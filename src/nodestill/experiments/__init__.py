"""Recipes, and the runs made from them."""

from nodestill.experiments.asked import asked_recipe
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.attacked import Attacked, attacked_model
from nodestill.experiments.attacking import asked_attack, attack_model
from nodestill.experiments.auditing import Audited, AuditRecipe, asked_audit, asked_verdict, audit_model, require_verdict
from nodestill.experiments.loaded import Loaded, find_run, load_run
from nodestill.experiments.model_recipes import Distillation, StudentRecipe, TeacherRecipe
from nodestill.experiments.paper import published, recipe_named, recipes
from nodestill.experiments.plain import fingerprint, from_plain, to_plain, with_overrides
from nodestill.experiments.recipe import Recipe, Role
from nodestill.experiments.records import AuditRecords, Experiment, RunRecords, read_audit, read_experiment, read_run
from nodestill.experiments.solvers import SolverRow, score_solvers, solver_rows
from nodestill.experiments.stages import Stage, attack_key, attack_run, run
from nodestill.experiments.store import RunFolder, Store
from nodestill.experiments.workspace import Workspace

__all__ = [
    "Attacked",
    "AuditRecipe",
    "AuditRecords",
    "Audited",
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
    "asked_attack",
    "asked_audit",
    "asked_recipe",
    "asked_verdict",
    "attack_key",
    "attack_model",
    "attack_run",
    "attacked_model",
    "audit_model",
    "find_run",
    "fingerprint",
    "from_plain",
    "load_run",
    "published",
    "read_audit",
    "read_experiment",
    "read_run",
    "recipe_named",
    "recipes",
    "require_verdict",
    "run",
    "score_solvers",
    "solver_rows",
    "to_plain",
    "with_overrides",
]
