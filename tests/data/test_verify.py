"""Summaries of what a data set holds, against what the tests put in."""

import hashlib

import pytest
from sklearn.datasets import load_digits

from nodestill.data import Dataset, Split, verify
from nodestill.errors import DataError


@pytest.fixture
def root(tmp_path, write, encode, pixels, cifar_names):
    write(tmp_path / "train.parquet", [encode(image) for image in pixels], [1] * 11 + [8], names=cifar_names)
    write(tmp_path / "test.parquet", [encode(pixels[0])], [3], names=cifar_names)
    return tmp_path


def test_a_summary_says_what_the_files_hold(root, pixels, cifar_names):
    train, test = verify(Dataset.CIFAR10, root)
    assert (train.split, test.split) == (Split.TRAIN, Split.TEST)
    assert (train.count, test.count) == (12, 1)
    assert train.class_counts == {name: {"automobile": 11, "ship": 1}.get(name, 0) for name in cifar_names}
    assert train.shape == (3, 4, 6)
    assert train.sha256 == hashlib.sha256((root / "train.parquet").read_bytes()).hexdigest()
    assert train.provenance == f"CIFAR-10, unverified (sha256 {train.sha256[:8]}…)"
    assert train.pixel_mean == pytest.approx(pixels.mean((0, 1, 2)) / 255)


def test_bundled_data_have_no_checksum():
    train, test = verify(Dataset.DIGITS, None)
    assert train.sha256 is None
    assert list(test.class_counts.values()) == [list(load_digits().target[-360:]).count(digit) for digit in range(10)]


def test_one_damaged_image_fails_the_whole(root, write, encode, pixels):
    write(root / "test.parquet", [encode(pixels[0])[:-30]], [3])
    with pytest.raises(DataError, match="Row 0 of"):
        verify(Dataset.CIFAR10, root)
