"""The bundled digits, and how a training set is cut into parts."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nodestill.data import Dataset, Split, load_image_set
from nodestill.errors import DataError


def svhn(tmp_path, write, encode, paths: list[str] | None, count: int):
    """A small SVHN whose image number i has the grey value i everywhere."""
    contents = [encode(np.full((2, 2, 3), number, np.uint8)) for number in range(count)]
    for stem in ("train", "test"):
        write(tmp_path / f"{stem}.parquet", contents, [0] * count, image="image", paths=paths)
    return tmp_path


def part(dataset: Dataset, split: Split, root=None) -> list[int]:
    return load_image_set(dataset, split, root).images[:, 0, 0, 0].tolist()


def test_digits_are_those_of_scikit_learn():
    train, test = (load_image_set(Dataset.DIGITS, split) for split in (Split.TRAIN, Split.TEST))
    bunch = load_digits()
    assert (len(train), len(test)) == (1437, 360)
    images = torch.cat([train.images, test.images]).numpy()
    assert np.array_equal(images, np.floor(bunch.images * 255 / 16 + 0.5).astype(np.uint8)[:, None].repeat(3, 1))
    assert images.max() == 255
    assert torch.cat([train.labels, test.labels]).tolist() == bunch.target.tolist()
    assert train.class_names == tuple("0123456789")


def test_the_parts_of_the_training_set_are_disjoint_and_complete():
    whole, rest, held_out = (
        load_image_set(Dataset.DIGITS, split) for split in (Split.TRAIN, Split.TRAIN_PART, Split.VALIDATION)
    )
    assert (len(rest), len(held_out)) == (1437 - 143, 143)

    def rows(data):
        return [(image.numpy().tobytes(), int(label)) for image, label in zip(data.images, data.labels)]

    assert sorted(rows(rest) + rows(held_out)) == sorted(rows(whole))
    positions = [rows(whole).index(row) for row in rows(held_out)]
    assert positions == sorted(positions)
    assert held_out.labels.bincount(minlength=10).min() >= 7  # all classes, so not a run of the file


def test_the_validation_part_never_changes():
    # Stored value: settings were chosen on these images, so a change here would invalidate earlier choices.
    held_out = load_image_set(Dataset.DIGITS, Split.VALIDATION)
    assert held_out.labels[:12].tolist() == [7, 9, 5, 8, 6, 3, 6, 1, 9, 8, 9, 6]


def test_svhn_is_cut_by_photograph_where_known(tmp_path, write, encode):
    paths = [f"train/{photograph}_{digit}.png" for photograph in range(1, 31) for digit in range(3)]
    root = svhn(tmp_path, write, encode, paths, 90)
    rest, held_out = part(Dataset.SVHN, Split.TRAIN_PART, root), part(Dataset.SVHN, Split.VALIDATION, root)
    assert sorted(rest + held_out) == list(range(90))
    assert len(held_out) == 9
    assert {image // 3 for image in rest}.isdisjoint(image // 3 for image in held_out)


def test_svhn_is_cut_by_position_where_a_photograph_is_unknown(tmp_path, write, encode):
    for number, paths in enumerate((None, [f"train/{image // 3}_{image % 3}.png" for image in range(89)] + ["odd"])):
        root = svhn(tmp_path / str(number), write, encode, paths, 90)
        held_out = part(Dataset.SVHN, Split.VALIDATION, root)
        assert len(held_out) == 9
        assert len({image // 3 for image in held_out}) > 3


def test_a_set_too_small_to_be_cut_is_refused(tmp_path, write, encode):
    root = svhn(tmp_path, write, encode, ["train/5_0.png", "train/5_1.png"], 2)
    for split in (Split.TRAIN_PART, Split.VALIDATION):
        with pytest.raises(DataError, match="at least 2 images or photographs, got 1"):
            load_image_set(Dataset.SVHN, split, root)
    assert len(load_image_set(Dataset.SVHN, Split.TRAIN, root)) == 2
