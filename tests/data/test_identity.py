"""What tells data apart: their bytes, and neither their place nor their time."""

import os
import shutil

import pytest

from nodestill.data import Dataset, Split, count_images, identify, load_image_set
from nodestill.data.batches import ImageSet
from nodestill.errors import DataError, InputError


@pytest.fixture
def folder(tmp_path, encode, pixels):
    root = tmp_path / "pets"
    for number, stem in enumerate(("train", "test")):
        for kind in ("cat", "dog"):
            (root / stem / kind).mkdir(parents=True)
            (root / stem / kind / "0.png").write_bytes(encode(pixels[number]))
    return root


@pytest.fixture
def hub(tmp_path, write, encode, pixels):
    root = tmp_path / "hub"
    for number, stem in enumerate(("train", "test")):
        write(root / "cifar10" / f"{stem}.parquet", [encode(pixels[number])], [number])
    return root


def test_the_bundled_digits_are_always_the_same():
    assert identify(Dataset.DIGITS, None) == ("digits of scikit-learn", "bundled")


def test_an_image_folder_needs_its_directory():
    with pytest.raises(InputError, match="--data DIR"):
        identify(Dataset.FOLDER, None)


@pytest.mark.parametrize("dataset", [Dataset.CIFAR10, Dataset.SVHN, Dataset.FOLDER])
def test_missing_data_are_a_data_error(dataset, tmp_path):
    with pytest.raises(DataError):
        identify(dataset, tmp_path / "nowhere")


def test_the_place_and_the_time_do_not_matter(folder, tmp_path):
    found = identify(Dataset.FOLDER, folder)
    other = tmp_path / "elsewhere" / "pets"
    shutil.copytree(folder, other)
    os.utime(other / "train" / "cat" / "0.png", (0, 0))
    assert identify(Dataset.FOLDER, other) == found
    assert len(found.key) == 8
    assert int(found.key, 16) >= 0


@pytest.mark.parametrize("stem", ["train", "test"])
def test_every_byte_of_both_splits_matters(folder, stem, encode, pixels):
    before = identify(Dataset.FOLDER, folder)
    (folder / stem / "dog" / "0.png").write_bytes(encode(pixels[5]))
    assert identify(Dataset.FOLDER, folder).key != before.key


def test_names_of_images_and_classes_matter(folder):
    before = identify(Dataset.FOLDER, folder).key
    (folder / "train" / "dog" / "0.png").rename(folder / "train" / "dog" / "1.png")
    renamed = identify(Dataset.FOLDER, folder).key
    for stem in ("train", "test"):
        (folder / stem / "dog").rename(folder / stem / "eel")
    assert len({before, renamed, identify(Dataset.FOLDER, folder).key}) == 3


@pytest.mark.parametrize("stem", ["train", "test"])
def test_every_byte_of_a_parquet_file_matters(hub, stem, write, encode, pixels):
    before = identify(Dataset.CIFAR10, hub)
    write(hub / "cifar10" / f"{stem}.parquet", [encode(pixels[0])], [7])
    assert identify(Dataset.CIFAR10, hub).key != before.key


def test_unknown_bytes_are_called_unverified_and_each_copy_is_named_once(hub):
    provenance = identify(Dataset.CIFAR10, hub).provenance
    assert provenance.count("CIFAR-10, unverified (sha256 ") == 2  # two files, two checksums
    assert " / " in provenance
    shutil.copy(hub / "cifar10" / "train.parquet", hub / "cifar10" / "test.parquet")
    assert " / " not in identify(Dataset.CIFAR10, hub).provenance


def test_swapped_splits_are_other_data(hub):
    before = identify(Dataset.CIFAR10, hub).key
    train, test, aside = (hub / "cifar10" / name for name in ("train.parquet", "test.parquet", "aside"))
    train.rename(aside)
    test.rename(train)
    aside.rename(test)
    assert identify(Dataset.CIFAR10, hub).key != before


def test_nothing_is_decoded(folder, monkeypatch):
    (folder / "train" / "cat" / "0.png").write_bytes(b"not an image")
    monkeypatch.setattr(ImageSet, "__post_init__", None)
    assert identify(Dataset.FOLDER, folder).key


def test_images_are_counted_as_they_are_loaded(folder, hub, write, encode, pixels):
    (folder / "train" / "cat" / "1.png").write_bytes((folder / "train" / "cat" / "0.png").read_bytes())
    write(hub / "cifar10" / "train.parquet", [encode(pixels[n]) for n in range(2)], [0, 1])
    for dataset, root in ((Dataset.DIGITS, None), (Dataset.FOLDER, folder), (Dataset.CIFAR10, hub)):
        loaded = tuple(len(load_image_set(dataset, split, root)) for split in (Split.TRAIN, Split.TEST))
        assert count_images(dataset, root) == loaded


def test_a_file_that_is_not_parquet_cannot_be_counted(hub):
    (hub / "cifar10" / "test.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a readable parquet file"):
        count_images(Dataset.CIFAR10, hub)
