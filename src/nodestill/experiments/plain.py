"""Frozen dataclasses to plain JSON values and back, and changes to them by path, driven by their annotations.

No class name ever stands inside data: the annotation of a field says what its value becomes.
"""

import hashlib
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nodestill.errors import NodestillError, RecipeError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return a value of dataclasses, enums, tuples and scalars as dictionaries, lists and scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, tuple | list) else value


def from_plain(kind: type[T], plain: Any, path: str = "recipe") -> T:
    """Return a plain value as what an annotation says.

    Raises:
        RecipeError: If a field is unknown or missing or a value does not fit; names the path.
    """
    return _value_of(kind, plain, path)


def _value_of(kind: Any, plain: Any, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if plain is None else _value_of(next(a for a in arguments if a is not type(None)), plain, path)
    if origin is tuple:
        return tuple(_value_of(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(_listed(plain, path)))
    if is_dataclass(kind):
        return _dataclass(kind, plain, path)
    if issubclass(kind, Enum):
        return _member(kind, plain, path)
    return _scalar(kind, plain, path)


def fingerprint(*parts: object) -> str:
    """Return 8 hex digits that change with any field of the parts that can move a result, and with nothing else.

    A field that cannot, beyond rounding, says so: `field(metadata={"moves_results": False})`. One that came later than the
    first results says that, `{"later": True}`, and counts only where it differs from its default (no factory): what ran
    before it existed is the same run.
    """
    text = json.dumps([_that_matters(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _that_matters(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _that_matters(getattr(value, each.name)) for each in fields(value) if _matters(each, value)}
    return to_plain(value)


def _matters(described: Field, value: Any) -> bool:
    as_ever = described.metadata.get("later", False) and getattr(value, described.name) == described.default
    return described.metadata.get("moves_results", True) and not as_ever


def with_overrides(value: T, changes: Sequence[tuple[str, str]]) -> T:
    """Return a copy of a dataclass with fields at dotted paths set from text: [("student.training.epochs", "2"), ...].

    Lists are written with commas, and nothing as "none". The result is checked once, with all changes in it: a method and
    its number of steps can only change together.

    Raises:
        RecipeError: If a path names no field, or a text does not fit it; says which fields there are.
    """
    plain = to_plain(value)
    for path, text in changes:
        _set_from_text(plain, type(value), path, text)
    return from_plain(type(value), plain)


def _set_from_text(plain: dict[str, Any], kind: Any, path: str, text: str) -> None:
    holder, names = plain, path.split(".")
    for depth, name in enumerate(names):
        kind = _field_kind(kind, name, ".".join(names[:depth]) or "The recipe")
        if depth + 1 < len(names):
            holder = holder[name]
            if holder is None:
                raise RecipeError(f"{'.'.join(names[: depth + 1])} is none here, so {path} cannot be set.")
    holder[names[-1]] = _from_text(kind, text, path)


def _field_kind(kind: Any, name: str, where: str) -> Any:
    kind = next((a for a in get_args(kind) if is_dataclass(a)), kind)
    if not is_dataclass(kind):
        raise RecipeError(f"{where} is a single value and has no field {name!r}.")
    hints = get_type_hints(kind)
    if name not in hints:
        raise RecipeError(unknown_name(f"{where} has no field", name, hints))
    return hints[name]


def unknown_name(complaint: str, name: str, known: Any) -> str:
    """Return a sentence on a name that is none of the known ones, with the nearest and all of them."""
    near = get_close_matches(name, list(known), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{complaint} {name!r}.{hint} There are: {', '.join(known)}."


def _from_text(kind: Any, text: str, path: str) -> Any:
    if text.lower() == "none" and type(None) in get_args(kind):
        return None
    if get_origin(kind) is tuple:
        return [_from_text(get_args(kind)[0], part.strip(), path) for part in text.split(",") if part.strip()]
    inner = next((a for a in get_args(kind) if a is not type(None)), kind)
    if is_dataclass(inner):
        raise RecipeError(f"{path} holds several fields: set them one by one, as {path}.{fields(inner)[0].name}.")
    if inner in (int, float):
        return _number(inner, text, path)
    if inner is bool:
        if text.lower() not in ("true", "false"):
            raise RecipeError(f"{path} must be true or false, got {text!r}.")
        return text.lower() == "true"
    return text


def _number(kind: type, text: str, path: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise RecipeError(f"{path} must be {'a whole number' if kind is int else 'a number'}, got {text!r}.") from None


def _listed(plain: Any, path: str) -> list:
    if not isinstance(plain, list | tuple):
        raise RecipeError(f"{path} must be a list, got {plain!r}.")
    return list(plain)


def _dataclass(kind: Any, plain: Any, path: str) -> Any:
    if not isinstance(plain, Mapping):
        raise RecipeError(f"{path} must be a table of fields, got {plain!r}.")
    hints = get_type_hints(kind)
    unknown = [name for name in plain if name not in hints]
    if unknown:
        raise RecipeError(unknown_name(f"{path} has no field", unknown[0], hints))
    try:
        return kind(**{name: _value_of(hints[name], plain[name], f"{path}.{name}") for name in plain})
    except TypeError as error:
        raise RecipeError(f"{path} is not complete: {error}.") from None
    except NodestillError as error:
        raise error if isinstance(error, RecipeError) else RecipeError(f"{path}: {error}") from None


def _member(kind: type[Enum], plain: Any, path: str) -> Enum:
    known = [member.value for member in kind]
    if plain not in known:
        raise RecipeError(unknown_name(f"{path} cannot be", str(plain), [str(value) for value in known]))
    return kind(plain)


def _scalar(kind: type, plain: Any, path: str) -> Any:
    if kind is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if not isinstance(plain, kind) or (kind is int and isinstance(plain, bool)):
        raise RecipeError(f"{path} must be {kind.__name__}, got {plain!r}.")
    return plain
