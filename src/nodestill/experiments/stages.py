"""The stages of an experiment: train its models, attack them; each is skipped where its folder says that it is done.

This is where a device is chosen and where data are loaded, and only if there is work to do. Nothing is printed: progress goes
to `Workspace.watch`.
"""

import time
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cached_property
from typing import Any

from nodestill.attacks import AttackName, Protocol, Subject, adversarial_examples, paper_budget, robustness_sweep
from nodestill.data import DataIdentity, ImageSet, Split, identify, load_image_set
from nodestill.experiments.alone import alone_in
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.attacked import attacked_run
from nodestill.experiments.fit import device_of, train_member
from nodestill.experiments.gallery import gallery_rows
from nodestill.experiments.loaded import load_run, require_classes
from nodestill.experiments.member_training import MemberTraining
from nodestill.experiments.members import Member, members
from nodestill.experiments.plain import fingerprint, to_plain
from nodestill.experiments.processes import Watch
from nodestill.experiments.recipe import Recipe
from nodestill.experiments.scoring import subject_of
from nodestill.experiments.store import RunFolder
from nodestill.experiments.workspace import Workspace
from nodestill.experiments.worst_case import attack_soundly

_PICTURES = 8  # in the gallery of a run


class Stage(Enum):
    """How far to go."""

    TEACHER = "teacher"
    STUDENT = "student"
    ROBUSTNESS = "robustness"


class _Images:
    """The image sets of a recipe, loaded when first asked for."""

    def __init__(self, recipe: Recipe, workspace: Workspace) -> None:
        self._recipe, self._workspace = recipe, workspace

    def _load(self, split: Split) -> ImageSet:
        return load_image_set(self._recipe.dataset, split, self._workspace.data_root)

    @cached_property
    def train(self) -> ImageSet:
        return self._load(Split.TRAIN)

    @cached_property
    def train_part(self) -> ImageSet:
        return self._load(Split.TRAIN_PART)

    @cached_property
    def validation(self) -> ImageSet:
        return self._load(Split.VALIDATION)

    @cached_property
    def test(self) -> ImageSet:
        return self._load(Split.TEST)


def run(recipe: Recipe, workspace: Workspace, until: Stage = Stage.ROBUSTNESS) -> bool:
    """Train and attack every model of a recipe that is not done yet, and list them in `<recipe name>/experiment.json`.

    How long it took is a row of `commands.jsonl` there.

    Args:
        recipe: What to do.
        workspace: Where, and with what.
        until: The last stage to do.

    Returns:
        Whether there was anything to do.

    Raises:
        DataError: If data or run folders cannot be read or written.
        TrainingError: If a training diverges.
    """
    started = time.perf_counter()
    identity = identify(recipe.dataset, workspace.data_root)
    found = members(recipe, identity)
    listing = {
        "name": recipe.name,
        "recipe": to_plain(recipe),
        "members": [member.folder for member in found],
        "attack": attack_key(recipe.robustness, identity),
    }
    folder = workspace.store.folder(recipe.name)
    _list_members(folder, listing)
    finished = worked = False
    try:
        worked = _work(recipe, workspace, until, identity, found)
        finished = True
    finally:
        if worked or not finished:
            seconds = time.perf_counter() - started
            folder.append("commands.jsonl", {"until": until.value, "finished": finished, "seconds": seconds, "schema": 1})
    return worked


def _work(recipe: Recipe, workspace: Workspace, until: Stage, identity: DataIdentity, found: list[Member]) -> bool:
    """Do what is not done yet, and return whether there was anything."""
    images = _Images(recipe, workspace)
    chosen = found[:1] if until is Stage.TEACHER else found
    trained = [_train(member, found[0], recipe, workspace, images) for member in chosen]
    if until is not Stage.ROBUSTNESS:
        return any(trained)
    folders = [workspace.store.folder(member.folder) for member in chosen]
    attacked = [attack_run(folder, recipe.robustness, workspace, identity, lambda: images.test) for folder in folders]
    return any(trained) or any(attacked)


def attack_key(asked: RobustnessRecipe, identity: DataIdentity) -> str:
    """Return the fingerprint that marks the rows of an attack on certain images."""
    return fingerprint(asked, identity.key)


def _list_members(folder: RunFolder, listing: dict[str, Any]) -> None:
    if not (folder.path / "experiment.json").exists() or folder.read("experiment.json") != listing:
        folder.write("experiment.json", listing)


def _train(member: Member, teacher: Member, recipe: Recipe, workspace: Workspace, images: _Images) -> bool:
    if workspace.store.folder(member.folder).is_done:
        return False
    taught_by = teacher if member.teacher else None
    held = member.training.hold_out
    sets = (images.train_part, images.validation) if held else (images.train, images.test)
    training = MemberTraining(member, taught_by, workspace.store, *sets, recipe.monitor_images, workspace.watch)
    train_member(training, workspace.accelerator, workspace.devices)
    return True


def attack_run(
    folder: RunFolder,
    asked: RobustnessRecipe,
    workspace: Workspace,
    identity: DataIdentity,
    images: Callable[[], ImageSet],
) -> bool:
    """Attack a finished model, one row of robustness.jsonl after the other, and keep a few of its adversarial images.

    Args:
        folder: Of the model.
        asked: How to attack; rows that are there already are not made again.
        workspace: Where, and with what.
        identity: Which data the images are.
        images: Returns the test images; called only if there is something to do (under the protocol sound, always).

    Returns:
        Whether there was anything to do.

    Raises:
        DataError: If the folder is not finished or damaged, or the images have other classes than the model.
        InputError: If another command attacks it.
    """
    if asked.protocol is Protocol.SOUND:
        return attack_soundly(attacked_run(folder, workspace, identity, images()), asked, workspace.watch)
    if not missing_rows(folder, asked, identity):
        return False
    with alone_in(folder.path):
        _attack_run(folder, asked, workspace, identity, images)
    return True


def _attack_run(
    folder: RunFolder,
    asked: RobustnessRecipe,
    workspace: Workspace,
    identity: DataIdentity,
    images: Callable[[], ImageSet],
) -> None:
    key = attack_key(asked, identity)
    missing = missing_rows(folder, asked, identity)
    done = {(attack, eps) for attack in asked.attacks for eps in asked.eps_255} - set(missing)
    data = images() if asked.images is None else images().first(asked.images)
    data = data.to(device_of(workspace.accelerator))
    model, class_names, recipe = load_run(folder, data.images.device)
    require_classes(folder, class_names, data)
    task = f"attack {recipe['role']} {recipe['title']}"
    subject = subject_of(model, _counter(workspace.watch, task, missing, data, asked))
    _write_gallery(folder, subject, data, asked, key)  # first: once all rows are there, nothing is left to do
    rows = robustness_sweep(
        subject, data, asked.protocol, asked.attacks, asked.eps_255, asked.batch_size, seed=asked.seed, done=done
    )
    for row in rows:
        folder.append("robustness.jsonl", {**to_plain(row), "recipe": key, "data": identity.provenance})


def missing_rows(folder: RunFolder, asked: RobustnessRecipe, identity: DataIdentity) -> list[tuple[AttackName, int]]:
    """Return attack and radius of the rows of the paper's protocol that a folder does not have yet."""
    key = attack_key(asked, identity)
    rows = folder.rows("robustness.jsonl", "recipe", "attack", "eps_255")
    done = {(AttackName(row["attack"]), row["eps_255"]) for row in rows if row["recipe"] == key}
    return [(attack, eps) for attack in asked.attacks for eps in asked.eps_255 if (attack, eps) not in done]


def _write_gallery(folder: RunFolder, subject: Subject, data: ImageSet, asked: RobustnessRecipe, key: str) -> None:
    widest = max(asked.eps_255, default=0)
    eps = min(asked.eps_255, key=lambda eps: abs(eps - max(8, widest // 2 if widest > 20 else 8)), default=0)
    pictures = gallery_rows(adversarial_examples(subject, data, eps, _PICTURES, seed=asked.seed), eps)
    others = folder.read("gallery.json") if (folder.path / "gallery.json").exists() else {}
    folder.write("gallery.json", {**others, key: pictures})


def _counter(
    watch: Watch, task: str, missing: Sequence[tuple[AttackName, int]], data: ImageSet, asked: RobustnessRecipe
) -> Callable[[], None]:
    """Return what counts the calls of an attacked model, roughly against those to come: gradients, scores, clean images."""
    batches, done = -(-len(data) // asked.batch_size), 0
    total = batches * (1 + sum(_calls(attack, eps) for attack, eps in missing)) + paper_budget(8).steps + 3

    def count() -> None:
        nonlocal done
        done += 1
        watch(task, min(done, total), total, "")

    return count


def _calls(attack: AttackName, eps: int) -> int:
    steps = paper_budget(eps).steps
    return 2 + (steps if attack is AttackName.PGD else min(steps, steps - eps + 1))
