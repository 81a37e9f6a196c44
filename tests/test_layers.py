"""Who may import whom, read from the syntax trees; and what a plain import must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nodestill

SOURCE = Path(nodestill.__file__).parent
EVERYONE = {"errors", "shapes", "precision", "intervals", "flags", "whole_files", "first_derivative"}
ALLOWED = {
    "errors": set(),
    "shapes": set(),
    "precision": set(),
    "intervals": set(),
    "flags": set(),
    "whole_files": set(),
    "first_derivative": set(),
    "ode": set(),
    "data": set(),
    "models": {"ode"},
    "training": {"data"},
    "attacks": {"data"},
    "subjects": {"ode", "models", "attacks"},
    "experiments": {"ode", "models", "data", "training", "attacks", "subjects"},
    "reproduction": {"ode", "models", "data", "training", "attacks", "experiments"},
    "report": {"experiments.records", "reproduction.grid_records"},
    "terminal": set(),
    "printing": {"experiments", "reproduction", "report", "terminal"},
    "cli": {"experiments", "reproduction", "data", "terminal", "printing"},
    "__main__": {"cli"},
    "__init__": {"ode", "models", "data", "training", "attacks", "subjects", "experiments"},  # the public names
}
# What takes long to import, or is needed by a part only, is imported inside the functions that use it.
LATE = {"ray", "matplotlib", "scipy", "lightning", "pyarrow", "sklearn", "PIL", "jinja2", "huggingface_hub", "safetensors"}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a module imports; those of `from a.b import c` as a.b.c."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def forbidden(part: str, text: str) -> list[str]:
    """Return the imports of nodestill in a module's text that its part may not make."""
    found = []
    for name in imports(ast.parse(text)):
        package, _, inner = name.partition(".")
        target = inner.split(".")[0]
        if package != "nodestill" or target == "__version__" or target == part:
            continue
        allowed = {*ALLOWED[part], *EVERYONE}
        if not any(inner == one or inner.startswith(f"{one}.") for one in allowed):
            found.append(name)
    return found


MODULES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nobody_imports_upwards_or_sideways(path):
    assert forbidden(part_of(path), path.read_text()) == []


def test_every_part_has_its_rule():
    assert {part_of(path) for path in MODULES} <= set(ALLOWED)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("ode", "import nodestill.models"),
        ("training", "from nodestill.models import resnet"),
        ("attacks", "def f():\n    from nodestill.ode import solve"),
        ("models", "from nodestill import data"),
        ("report", "from nodestill.experiments import read_experiment"),
        ("report", "from nodestill.experiments.store import RunFolder"),
        ("experiments", "from nodestill.cli import main"),
        ("experiments", "from nodestill.reproduction import Grid"),
        ("errors", "from nodestill.data import Batch"),
    ],
)
def test_the_rule_can_be_broken(part, text):
    assert forbidden(part, text)


def test_what_is_slow_to_import_is_imported_where_it_is_used():
    """At the top of a module only in `report`, which is itself imported late."""
    for path in MODULES:
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        loaded = {name.partition(".")[0] for name in imports(ast.Module(body=top, type_ignores=[]))}
        assert part_of(path) == "report" or not loaded & LATE, path


@pytest.mark.parametrize("module", ["nodestill", "nodestill.cli", "nodestill.experiments", "nodestill.reproduction"])
def test_a_plain_import_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*set({sorted(LATE)}) & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
    assert run.stderr == ""


def test_the_public_names_are_there():
    assert len(set(nodestill.__all__)) == len(nodestill.__all__)
    assert all(hasattr(nodestill, name) for name in nodestill.__all__)


def test_only_the_command_prints():
    for path in MODULES:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), path
