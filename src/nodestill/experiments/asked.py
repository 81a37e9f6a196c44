"""The recipe that a command line or a TOML file asks for."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nodestill.errors import RecipeError
from nodestill.experiments.paper import recipe_named
from nodestill.experiments.plain import fingerprint, from_plain, to_plain, with_overrides
from nodestill.experiments.recipe import Recipe


def asked_recipe(name: str, overrides: Sequence[str], options: Sequence[str] = ()) -> Recipe:
    """Return a recipe by name or from a file, with overrides as they stand on a command line: --student.channels 64.

    A recipe that was changed, but not renamed, gets a name of its own, so that it does not replace the published one.

    Args:
        name: Of a recipe, or a TOML file.
        overrides: Words of the command line.
        options: What else the command line may hold, to be named where one is mistyped.

    Raises:
        RecipeError: If the name, a field or a value is not known.
    """
    recipe = _from_file(Path(name)) if name.endswith(".toml") else recipe_named(name)
    _require_no_mistyped(overrides, options)
    changed = with_overrides(recipe, _pairs(overrides))
    if changed != recipe and changed.name == recipe.name:
        changed = replace(changed, name=f"{recipe.name}-{fingerprint(changed)}")
    return changed


def _pairs(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Return (path, value) for tokens such as --seed 1 or --seed=1."""
    pairs, rest = [], list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            raise RecipeError(f"{token!r} stands alone; a change to the recipe is written as --student.channels 64.")
        path, equals, value = token[2:].partition("=")
        if not equals and not rest:
            raise RecipeError(f"--{path} needs a value, as in --student.channels 64.")
        pairs.append((path.replace("-", "_"), value if equals else rest.pop(0)))
    return pairs


def _require_no_mistyped(tokens: Sequence[str], options: Sequence[str]) -> None:
    """Refuse what is nearer to an option of the command than to any field."""
    known = [field.name for field in fields(Recipe)]
    for token in tokens:
        path = token.removeprefix("--").partition("=")[0].replace("-", "_") if token.startswith("--") else known[0]
        near = [] if path in known else get_close_matches(path, [*known, *options], n=2, cutoff=0.8)
        if near and near[0] in options:
            meant = " or ".join(f"--{name}" for name in near)
            raise RecipeError(f"There is no option --{path}. Did you mean {meant}?".replace("_", "-"))


def _from_file(path: Path) -> Recipe:
    try:
        asked = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror or error}). Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}.") from None
    base = asked.pop("base", None)
    if not isinstance(base, str):
        raise RecipeError(f'{path} must name the recipe that it changes, as base = "cifar10-smoke".')
    asked.setdefault("name", path.stem)
    return from_plain(Recipe, _merged(to_plain(recipe_named(base)), asked), str(path))


def _merged(plain: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries with those of `changes` laid over them; unknown names are found by `from_plain`."""
    result = dict(plain)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if nested else value
    return result
