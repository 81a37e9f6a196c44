"""CIFAR-10 and SVHN: found where they should be, labelled by checksum, refused where they are something else."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from nodestill.data import Dataset, Split, channel_statistics, load_image_set
from nodestill.data.hub import KNOWN_FILES
from nodestill.data.sources import read_source
from nodestill.errors import DataError


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, in place of the user's."""
    cache = tmp_path / "home" / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def make(write, encode, pixels, cifar_names):
    """Write both splits of a small CIFAR-10 into a directory; test images are the training images upside down."""

    def make(directory: Path, names=cifar_names, label: str = "label") -> Path:
        write(directory / "train.parquet", [encode(image) for image in pixels], [9, *range(10), 0], names=names, label=label)
        write(directory / "test.parquet", [encode(image[::-1]) for image in pixels[:5]], [4, 3, 2, 1, 0], names=names)
        return directory

    return make


@pytest.mark.parametrize("below", ["cifar10", "."])
def test_both_layouts_below_root_are_read(tmp_path, make, pixels, cifar_names, below):
    make(tmp_path / below)
    train = load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path)
    test = load_image_set(Dataset.CIFAR10, Split.TEST, tmp_path)
    assert np.array_equal(train.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert np.array_equal(test.images.numpy(), pixels[:5, ::-1].transpose(0, 3, 1, 2))
    assert train.labels.tolist() == [9, *range(10), 0]
    assert (train.name, train.class_names) == ("cifar10", tuple(cifar_names))


def test_the_named_directory_goes_before_the_files_beside_it(tmp_path, make, write, encode, pixels):
    make(tmp_path / "cifar10")
    for stem in ("train", "test"):
        write(tmp_path / f"{stem}.parquet", [encode(pixels[0])], [0])
    assert len(load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path)) == 12


def test_classes_are_numbers_where_the_file_does_not_name_them(tmp_path, make):
    assert load_image_set(Dataset.CIFAR10, Split.TEST, make(tmp_path, names=None)).class_names == tuple("0123456789")


def test_a_file_in_the_hubs_cache_is_read_without_network(tmp_path, empty_cache, write, encode, pixels):
    repository = empty_cache / "datasets--ufldl-stanford--svhn"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40) / "cropped_digits"
    file = snapshot / "test-00000-of-00001.parquet"
    write(file, [encode(pixels[0])], [7], image="image", names=list("0123456789"))
    (tmp_path / "other").mkdir()
    for root in (None, tmp_path / "other"):
        data = load_image_set(Dataset.SVHN, Split.TEST, root)
        assert data.labels.tolist() == [7]
        assert np.array_equal(data.images[0].numpy(), pixels[0].transpose(2, 0, 1))
    with pytest.raises(DataError, match=r"SVHN \(train\) was not found"):
        load_image_set(Dataset.SVHN, Split.TRAIN)


def test_without_data_the_error_says_where_it_looked_and_what_to_do(tmp_path, empty_cache):
    with pytest.raises(DataError) as caught:
        load_image_set(Dataset.CIFAR10, Split.TEST, tmp_path)
    for part in (f"cifar10/test.parquet and test.parquet in {tmp_path}", str(empty_cache), "uoft-cs/cifar10", "--data DIR"):
        assert part in str(caught.value)


def test_only_the_split_asked_for_is_downloaded(tmp_path, monkeypatch, make):
    asked = []

    def download(repo: str, file: str, *, repo_type: str) -> str:
        asked.append((repo, file, repo_type))
        return str(make(tmp_path) / "test.parquet")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert len(load_image_set(Dataset.CIFAR10, Split.TEST)) == 5
    assert asked == [("uoft-cs/cifar10", "plain_text/test-00000-of-00001.parquet", "dataset")]


def test_a_root_that_is_missing_or_a_file_ends_in_no_download(tmp_path, monkeypatch, make):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **kwargs: pytest.fail("downloaded"))
    for root in (tmp_path / "nowhere", make(tmp_path) / "train.parquet"):
        with pytest.raises(DataError, match=f"{root.name} cannot be read"):
            load_image_set(Dataset.CIFAR10, Split.TRAIN, root)


def test_splits_of_different_copies_are_not_mixed(tmp_path, monkeypatch, make):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **kwargs: pytest.fail("downloaded"))
    (make(tmp_path / "cifar10") / "test.parquet").unlink()
    with pytest.raises(DataError, match=r"holds train\.parquet but no test\.parquet"):
        load_image_set(Dataset.CIFAR10, Split.TEST, tmp_path)


@pytest.mark.parametrize("method", ["read_bytes", "is_file", "iterdir"])
def test_a_lack_of_permission_is_told(tmp_path, monkeypatch, make, method):
    make(tmp_path)

    def refuse(path: Path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path)


def test_an_unknown_file_is_unverified_and_a_known_one_has_its_label(tmp_path, monkeypatch, make):
    sha256 = hashlib.sha256((make(tmp_path) / "train.parquet").read_bytes()).hexdigest()
    unknown = load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path)
    assert unknown.provenance == f"CIFAR-10, unverified (sha256 {sha256[:8]}…)"
    monkeypatch.setitem(KNOWN_FILES, sha256, ("cifar10", "train", "CIFAR-10, a test's"))
    assert load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path).provenance == "CIFAR-10, a test's"


@pytest.mark.parametrize("known_as", [("svhn", "train", "SVHN, a test's"), ("cifar10", "test", "CIFAR-10, a test's")])
def test_a_known_file_under_the_wrong_name_is_refused(tmp_path, monkeypatch, make, known_as):
    sha256 = hashlib.sha256((make(tmp_path) / "train.parquet").read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN_FILES, sha256, known_as)
    with pytest.raises(DataError, match=f"is the {known_as[1]} split of {known_as[2]}, expected the train split"):
        load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path)


def test_classes_of_another_data_set_are_refused(tmp_path, make):
    with pytest.raises(DataError, match=r"airplane, automobile, bird.*expected those of SVHN"):
        load_image_set(Dataset.SVHN, Split.TRAIN, make(tmp_path))


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range_is_named_by_its_row(tmp_path, make, write, encode, pixels, label):
    write(make(tmp_path) / "train.parquet", [encode(image) for image in pixels[:3]], [0, 9, label])
    with pytest.raises(DataError, match=rf"Row 2 of .*train\.parquet has label {label}, expected 0 … 9"):
        load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path)


def test_a_truncated_file_is_refused(tmp_path, make):
    file = make(tmp_path) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train\.parquet .* is not a readable parquet file"):
        load_image_set(Dataset.CIFAR10, Split.TRAIN, tmp_path)


def test_the_lossless_part_is_cifar10(real_data):
    train = load_image_set(Dataset.CIFAR10, Split.TRAIN, real_data / "cifar10_lossless")
    assert train.provenance == "CIFAR-10, lossless part"
    assert train.images.shape == (8152, 3, 32, 32)
    # The first image of data_batch_1 is a frog whose first pixel is (59, 62, 63).
    assert train.class_names[int(train.labels[0])] == "frog"
    assert train.images[0, :, 0, 0].tolist() == [59, 62, 63]
    mean, deviation = channel_statistics(train)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.005)  # of the whole training set, as usually quoted
    assert deviation == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.005)


def test_the_small_part_of_svhn_is_split_by_photograph(real_data):
    source = read_source(Dataset.SVHN, "train", real_data)
    parts = [load_image_set(Dataset.SVHN, split, real_data) for split in (Split.TRAIN_PART, Split.VALIDATION)]
    assert [data.provenance for data in parts] == ["SVHN, small part"] * 2
    assert source.labels[:2].tolist() == [1, 9]  # the first photograph shows "19"
    photographs = [Path(str(path)).stem.split("_")[0] for path in source.paths]
    order = {image.numpy().tobytes(): photograph for image, photograph in zip(source.images, photographs)}
    trained, held_out = ({order[image.numpy().tobytes()] for image in data.images} for data in parts)
    assert len(trained) + len(held_out) == 499
    assert not trained & held_out
    assert len(held_out) == 49
    assert sum(len(data) for data in parts) == 1083


def test_the_complete_mirror_has_all_images(real_data):
    test = load_image_set(Dataset.CIFAR10, Split.TEST, real_data)
    assert test.provenance == "CIFAR-10, JPEG mirror"
    assert torch.bincount(test.labels).tolist() == [1000] * 10
