"""Augmentation of images whose pixels say where they stood, so that every view can be read back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nodestill.data import Augment, augmented
from nodestill.errors import InputError

HEIGHT, WIDTH, PADDING = 6, 8, 2


def index_images(count: int) -> torch.Tensor:
    """Images whose first two channels are row + 1 and column + 1, so that 0 can only be padding; the third is 255."""
    image = torch.stack(
        [
            torch.arange(1, HEIGHT + 1)[:, None].expand(HEIGHT, WIDTH),
            torch.arange(1, WIDTH + 1)[None, :].expand(HEIGHT, WIDTH),
            torch.full((HEIGHT, WIDTH), 255),
        ]
    ).to(torch.uint8)
    return image.repeat(count, 1, 1, 1)


def views(count: int, augment: Augment, seed: int = 0) -> torch.Tensor:
    keys = torch.arange(count)
    return augmented(index_images(count), keys // 7, keys, augment, seed=seed)


def crop(row: int, column: int, flip: bool) -> np.ndarray:
    """The crop at (row, column) of the padded index image, by NumPy."""
    padded = np.pad(index_images(1)[0].numpy(), ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    window = padded[:, row : row + HEIGHT, column : column + WIDTH]
    return window[:, :, ::-1] if flip else window


def read_back(view: torch.Tensor, flips: tuple[bool, ...]) -> tuple[int, int, bool]:
    """Return the one crop that this view is."""
    positions = range(2 * PADDING + 1)
    fits = [(r, c, f) for r in positions for c in positions for f in flips if np.array_equal(crop(r, c, f), view)]
    assert len(fits) == 1
    return fits[0]


def test_the_default_changes_nothing():
    assert torch.equal(views(5, Augment()), index_images(5))


def test_every_crop_is_a_window_of_the_padded_image_and_all_are_equally_likely():
    found = [read_back(view, (False,)) for view in views(1000, Augment(crop_padding=PADDING))]
    counts = np.bincount([row * 5 + column for row, column, _ in found], minlength=25)
    assert counts.size == 25
    assert ((counts - 40) ** 2 / 40).sum() < 24 + 4 * 48**0.5


def test_half_of_the_views_are_flipped_independently_of_the_crop():
    found = [read_back(view, (False, True)) for view in views(1000, Augment(crop_padding=PADDING, flip=True))]
    flips = np.array([flip for _, _, flip in found])
    rows = np.array([row for row, _, _ in found])
    assert abs(flips.mean() - 0.5) < 0.064  # four standard deviations
    assert abs(np.corrcoef(flips, rows)[0, 1]) < 0.13


def test_leaving_the_flip_out_leaves_the_crops_as_they_are():
    plain, flipped = (views(50, Augment(crop_padding=PADDING, flip=flip)) for flip in (False, True))
    crops = [read_back(view, (False,))[:2] for view in plain]
    assert [read_back(view, (False, True))[:2] for view in flipped] == crops


def test_flip_alone_mirrors_left_to_right():
    image = index_images(1)[0]
    seen = {bool(torch.equal(view, image.flip(2))) for view in views(20, Augment(flip=True)) if not view.equal(image)}
    assert seen == {True}


@given(seed=st.integers(0, 2**63), order=st.permutations(range(9)), size=st.integers(1, 9))
def test_a_view_depends_on_its_keys_alone(seed, order, size):
    everything = Augment(crop_padding=PADDING, flip=True, cutout=3)
    index, view = torch.arange(9) * 1000, torch.arange(9) % 4
    whole = augmented(index_images(9), index, view, everything, seed=seed)
    picked = torch.tensor(order[:size])
    assert torch.equal(augmented(index_images(size), index[picked], view[picked], everything, seed=seed), whole[picked])


@pytest.mark.parametrize("changed", ["seed", "index", "view"])
def test_another_key_makes_another_view(changed):
    keys = {"seed": 0, "index": 0, "view": 0}

    def fifty(keys: dict[str, int]) -> torch.Tensor:
        index, view = torch.arange(50) + keys["index"], torch.full((50,), keys["view"])
        return augmented(index_images(50), index, view, Augment(crop_padding=PADDING, flip=True), seed=keys["seed"])

    same = (fifty(keys) == fifty({**keys, changed: 1})).flatten(1).all(1)
    assert same.sum() < 8  # one in fifty by chance


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_blackens_a_square_around_a_uniform_centre(side):
    black = (views(2000, Augment(cutout=side)) == 0).all(1)
    heights, widths = black.any(2).sum(1), black.any(1).sum(1)
    assert torch.equal(black.sum((1, 2)), heights * widths)  # a full rectangle …
    assert int(heights.max()) == int(widths.max()) == side  # … of at most this side …
    assert int(heights.min()) == int(widths.min()) == (side + 1) // 2  # … cut off at the border
    covered = black.float().mean(0)
    expected = np.zeros((HEIGHT, WIDTH))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            top, left = row - side // 2, column - side // 2
            expected[max(0, top) : top + side, max(0, left) : left + side] += 1 / (HEIGHT * WIDTH)
    deviation = np.sqrt(expected * (1 - expected) / 2000)
    assert (np.abs(covered.numpy() - expected) < 4 * deviation).all()


def test_the_images_given_are_left_as_they_are():
    images = index_images(8)
    augmented(images, torch.arange(8), torch.arange(8), Augment(2, True, 4), seed=0)
    assert torch.equal(images, index_images(8))


@pytest.mark.parametrize("sizes", [{"crop_padding": -1}, {"cutout": -2}])
def test_negative_sizes_are_refused(sizes):
    with pytest.raises(InputError, match="at least 0"):
        Augment(**sizes)


def test_reflected_borders_are_those_of_numpy():
    picture, size = index_images(1)[0].numpy(), 2 * PADDING + 1
    padded = np.pad(picture, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)), mode="reflect")
    windows = [padded[:, r : r + HEIGHT, c : c + WIDTH] for r in range(size) for c in range(size)]
    found = views(300, Augment(crop_padding=PADDING, reflect=True)).numpy()
    hits = [[np.array_equal(view, window) for window in windows].index(True) for view in found]
    assert set(hits) == set(range(size**2))


def test_a_margin_as_wide_as_the_image_cannot_mirror_it():
    with pytest.raises(InputError, match="A margin of 6 pixels cannot mirror images of 6 x 8"):
        views(1, Augment(crop_padding=6, reflect=True))
    assert views(1, Augment(crop_padding=5, reflect=True)).shape == (1, 3, 6, 8)


def test_alternate_views_are_flipped_by_turns_and_half_of_the_images_at_each():
    index = torch.arange(200)
    flips = []
    for epoch in range(4):
        found = augmented(index_images(200), index, torch.full_like(index, epoch), Augment(flip=True, alternate=True), seed=5)
        flips.append((found != index_images(200)).flatten(1).any(1))
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert torch.equal(flips[1], flips[3])
    assert abs(float(flips[0].double().mean()) - 0.5) < 0.15
