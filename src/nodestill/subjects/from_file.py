"""A `Subject` from anybody's Python file."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from uuid import uuid4

from torch import nn

from nodestill.attacks import Subject
from nodestill.errors import DataError, InputError
from nodestill.models import NeuralODEClassifier
from nodestill.shapes import Images
from nodestill.subjects.of_model import subject_of_model
from nodestill.subjects.of_torchdiffeq import grey, seen, subject_of_solves


def subject_from_file(asked: str, images: Images | None = None) -> Subject:
    """Make a subject of a model in a Python file, which is run; it may import its neighbours.

    Args:
        asked: File and name in it, as in `path/to/model.py:net`: a module or a `Subject`, or a function or class without
            arguments that makes one. A module is put into evaluation mode and frozen.
        images: A few images, on the device to compute on, on which a module is tried. None takes two grey ones of 32 x 32.

    Returns:
        The subject as it was made, or that of a module: `subject_of_model` of a Neural ODE of ours, `subject_of_torchdiffeq`
        of one that calls torchdiffeq, of any other its logits alone.

    Raises:
        DataError: If the file is missing or cannot be run.
        InputError: If the name is missing, or means no model, or one that cannot be attacked.
    """
    file, _, name = asked.rpartition(":")
    if not file or not name.isidentifier():
        raise InputError(f"{asked!r} names no model. Write a file and a name in it, as in path/to/model.py:net.")
    if not Path(file).is_file():
        raise DataError(f"There is no file {file}, seen from {Path.cwd()}. Write path/to/model.py:net.")
    folder = str(Path(file).resolve().parent)
    sys.path.insert(0, folder)
    try:
        found = _made(asked, _attribute(_run(Path(file)), name, file))
        return found if isinstance(found, Subject) else _subject_of_users(asked, found, images)
    finally:
        sys.path.remove(folder)


def _subject_of_users(asked: str, model: nn.Module, images: Images | None) -> Subject:
    model = model.eval().requires_grad_(False)
    model, images = (model, grey(model)) if images is None else (model.to(images.device), images)
    solves = seen(asked, model, images)
    if isinstance(model, NeuralODEClassifier):
        return subject_of_model(model)
    return subject_of_solves(model, solves, images) if solves else Subject(model, module=model)


def _run(path: Path) -> ModuleType:
    name = f"{path.stem}-{uuid4().hex}"  # of its own: it must hide no other module, nor an earlier version of itself
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} is no Python file. Write path/to/model.py:net.")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # where a redirect looks for torchdiffeq's names
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        why = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} cannot be run: {why}. Let it define the model, and do no more when imported.") from error
    return module


def _attribute(module: ModuleType, name: str, file: str) -> object:
    names = vars(module)
    if name not in names:
        own = [n for n, v in names.items() if isinstance(v, nn.Module) or getattr(v, "__module__", "") == module.__name__]
        raise InputError(f"{file} has no {name!r}. It has: {', '.join(own) or 'nothing that could be a model'}.")
    return names[name]


def _made(asked: str, found: object) -> nn.Module | Subject:
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{asked} makes no model: {why}. It is called without arguments; name one that needs none."
            ) from error
    if not isinstance(found, nn.Module | Subject):
        raise InputError(f"{asked} is a {type(found).__name__}, expected a torch.nn.Module, a Subject, or a function of one.")
    return found
