"""A model with what an attack on it needs: its images, its relatives, and the folder that its rows go to."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nodestill.attacks import LogitsFn, Subject
from nodestill.data import DataIdentity, Dataset, ImageSet, Split, identify, load_image_set
from nodestill.errors import InputError
from nodestill.experiments.fit import device_of
from nodestill.experiments.loaded import find_run, load_run, require_classes
from nodestill.experiments.plain import fingerprint, from_plain
from nodestill.experiments.records import experiments_named
from nodestill.experiments.store import RunFolder, Store
from nodestill.experiments.workspace import Workspace
from nodestill.shapes import Images
from nodestill.subjects.from_file import subject_from_file
from nodestill.subjects.of_model import subject_of_model


@dataclass(frozen=True)
class Attacked:
    """A model under attack.

    Args:
        title: What it is called in print.
        subject: The model, as deployed.
        data: Test images, on its device.
        identity: Which data they are.
        folder: Where rows go.
        kin: Other models of the same images by name: those of its experiments.
        relatives: Their folders, in the same order.
        weights: Checksum of the weights of anybody's model; empty for a run, whose folder is named by what made it.
    """

    title: str
    subject: Subject
    data: ImageSet
    identity: DataIdentity
    folder: RunFolder
    kin: Mapping[str, LogitsFn]
    relatives: tuple[str, ...] = ()
    weights: str = ""

    def key(self, *asked: object) -> str:
        """Return the fingerprint of what was asked of these images and these weights: it marks the rows."""
        return fingerprint(*asked, self.identity.key, *([self.weights] if self.weights else []))


def _weights_key(subject: Subject, file: Path, images: Images) -> str:
    """Return a checksum of a model's file, and of its parameters and buffers or, where it does not show them, its answers."""
    digest = hashlib.sha256(file.read_bytes())
    for name, tensor in (subject.module.state_dict() if subject.module is not None else {}).items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if subject.module is None:
        with torch.no_grad():
            digest.update(subject.logits(images).double().cpu().numpy().tobytes())
    return digest.hexdigest()


def attacked_model(name: str, workspace: Workspace, dataset: str | None) -> Attacked:
    """Return what a name on the command line means: a run, or `file.py:name`, anybody's model.

    Args:
        name: A run folder in the store, an experiment, experiment:role, or a Python file and what in it is the model.
        workspace: Where runs and data are, and what computes.
        dataset: Name of the data set of anybody's model; a run knows its own.

    Raises:
        DataError: If there is no such run or file.
        InputError: If the data set is missing or none can be made of what the file holds.
    """
    is_file = ".py:" in name or name.endswith(".py")
    if dataset is not None and not is_file:
        raise InputError(f"--dataset is for models of your own; {name!r} is a run, and knows its images. Leave it out.")
    return _from_file(name, workspace, dataset) if is_file else _from_run(name, workspace)


def _from_run(name: str, workspace: Workspace) -> Attacked:
    folder = find_run(workspace.store, name)
    dataset = from_plain(Dataset, folder.read("recipe.json", "dataset")["dataset"], f"{folder.path}: dataset")
    data = load_image_set(dataset, Split.TEST, workspace.data_root)
    return attacked_run(folder, workspace, identify(dataset, workspace.data_root), data)


def attacked_run(folder: RunFolder, workspace: Workspace, identity: DataIdentity, data: ImageSet) -> Attacked:
    """Return a finished run as a model under attack, with the other models of its experiments as relatives.

    Args:
        folder: Of the model.
        workspace: Where its relatives are, and what computes.
        identity: Which data the images are.
        data: Test images.

    Raises:
        DataError: If the folder is not finished or damaged, or the images have other classes than the model.
    """
    device = device_of(workspace.accelerator)
    model, class_names, recipe = load_run(folder, device)
    require_classes(folder, class_names, data)
    data, title = data.to(device), f"{recipe['title']}, {recipe['role']}"
    kin = _kin(folder, workspace.store, device, data)
    logits = {role: fn for role, (_, fn) in kin.items()}
    return Attacked(title, subject_of_model(model), data, identity, folder, logits, tuple(name for name, _ in kin.values()))


def _kin(folder: RunFolder, store: Store, device: torch.device, data: ImageSet) -> dict[str, tuple[str, LogitsFn]]:
    """Return folder and logits of the other finished models of the experiments that list a run, by role."""
    found: dict[str, tuple[str, LogitsFn]] = {}
    for experiment in experiments_named(store.root, "*"):
        members = [store.folder(member) for member in store.folder(experiment).read("experiment.json", "members")["members"]]
        if folder.path.name in {member.path.name for member in members}:
            for member in members:
                if member.is_done and member.path.name != folder.path.name:
                    loaded = load_run(member, device)
                    if tuple(loaded.class_names) == data.class_names:
                        found.setdefault(loaded.recipe["role"], (member.path.name, subject_of_model(loaded.model).logits))
    return found


def _from_file(name: str, workspace: Workspace, dataset: str | None) -> Attacked:
    if dataset is None:
        raise InputError(
            f"{name} is a model of your own: say which images it classifies, with --dataset cifar10, svhn or digits."
        )
    kind, device = from_plain(Dataset, dataset, "--dataset"), device_of(workspace.accelerator)
    data = load_image_set(kind, Split.TEST, workspace.data_root).to(device)
    images = data.at(torch.arange(min(2, len(data)))).images
    subject = subject_from_file(name, images)
    _require_answers(name, subject, images, data)
    file = Path(name.rpartition(":")[0])
    place = f"{file.resolve()}:{name.rpartition(':')[2]}"  # one folder, however the path is spelled
    folder = workspace.store.folder(f"attacked-{file.stem}-{fingerprint(place)}")
    identity = identify(kind, workspace.data_root)
    return Attacked(name, subject, data, identity, folder, {}, weights=_weights_key(subject, file, images))


def _require_answers(name: str, subject: Subject, images: Images, data: ImageSet) -> None:
    """Raise `InputError` unless a model of somebody's gives one logit per class of the images."""
    try:
        with torch.no_grad():
            shape = tuple(subject.logits(images).shape)
    except RuntimeError as error:
        raise InputError(f"{name} fails on images of shape {tuple(images.shape)}: {error}. Try it on such images.") from error
    if shape != (len(images), data.num_classes):
        raise InputError(
            f"{name} answers {len(images)} images with logits of shape {shape}, but {data.provenance} has {data.num_classes} "
            "classes. Name the data set that the model was made for."
        )
