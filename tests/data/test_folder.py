"""Image folders made here: sorted classes, sorted images, and an error for each way to be inconsistent."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from nodestill.data import Dataset, Split, load_image_set
from nodestill.errors import DataError, InputError


@pytest.fixture
def folder(tmp_path, encode, pixels) -> Path:
    """Two classes, in train with two and one images, in test with one each; names chosen against the order of making."""
    root = tmp_path / "pets"
    places = ["train/dog/2.png", "train/cat/b.png", "train/cat/a.PNG", "test/dog/x.png", "test/cat/y.png"]
    for place, image in zip(places, pixels):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(encode(image))
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    (root / "train" / ".hidden").mkdir()
    return root


def load(root: Path, split: Split = Split.TRAIN):
    return load_image_set(Dataset.FOLDER, split, root)


def test_classes_and_images_come_in_sorted_order(folder, pixels):
    train, test = load(folder), load(folder, Split.TEST)
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 1]
    assert np.array_equal(train.images.numpy(), pixels[[2, 1, 0]].transpose(0, 3, 1, 2))
    assert np.array_equal(test.images.numpy(), pixels[[4, 3]].transpose(0, 3, 1, 2))


def test_provenance_is_a_checksum_of_names_and_contents(folder):
    digest = hashlib.sha256()
    for place in ("train/cat/a.PNG", "train/cat/b.png", "train/dog/2.png"):
        digest.update(f"{place}\n".encode() + hashlib.sha256((folder / place).read_bytes()).digest())
    first = load(folder).provenance
    assert first == f"image folder pets (sha256 {digest.hexdigest()[:8]}…)"
    (folder / "train" / "dog" / "2.png").rename(folder / "train" / "dog" / "3.png")
    assert load(folder).provenance != first


def test_train_and_test_must_have_the_same_classes(folder):
    (folder / "test" / "owl").mkdir()
    for split in Split:
        with pytest.raises(DataError, match="same class folders, got 2 and 3; differing: owl"):
            load(folder, split)


def test_different_sizes_are_refused_with_the_sizes(folder, encode, pixels):
    (folder / "train" / "dog" / "3.png").write_bytes(encode(pixels[0][:2]))
    with pytest.raises(DataError, match=r"6×4 \(3 images\), 6×2 \(1 images\).*Resize"):
        load(folder)


def test_a_damaged_image_is_named(folder):
    (folder / "train" / "cat" / "b.png").write_bytes(b"\x89PNG but not really")
    with pytest.raises(DataError, match=r"train/cat/b\.png is not a readable image"):
        load(folder)


def test_a_class_without_images_is_refused(folder):
    (folder / "test" / "dog" / "x.png").unlink()
    with pytest.raises(DataError, match="test/dog holds no images"):
        load(folder, Split.TEST)


def test_missing_directories_are_named(folder, tmp_path):
    with pytest.raises(DataError, match="nowhere/train cannot be read"):
        load(tmp_path / "nowhere")
    for empty in ("train", "test"):
        (tmp_path / "bare" / empty).mkdir(parents=True)
    with pytest.raises(DataError, match="there are none"):
        load(tmp_path / "bare")


def test_a_folder_needs_its_directory():
    with pytest.raises(InputError, match="--data DIR"):
        load_image_set(Dataset.FOLDER, Split.TRAIN)
