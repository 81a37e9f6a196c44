"""Image sets and batches: what comes out is what went in, in an order that can be made again."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nodestill.data import Augment, Batch, ImageSet, augmented, channel_statistics, eval_batches, train_batches
from nodestill.errors import InputError

AUGMENT = Augment(crop_padding=1, flip=True)


def image_set(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 4, 6), generator=generator).to(torch.uint8)
    return ImageSet("made", "made by a test", images, torch.arange(count) % 3, ("a", "b", "c"))


def epoch_order(data: ImageSet, seed: int, epoch: int) -> list[int]:
    return torch.cat([batch.index for batch in train_batches(data, 4, AUGMENT, seed=seed, epoch=epoch)]).tolist()


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(left, right) for left, right in zip(a, b))


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(), epoch=st.integers(0, 1000))
def test_an_epoch_holds_every_image_once(count, batch_size, seed, epoch):
    batches = list(train_batches(image_set(count), batch_size, AUGMENT, seed=seed, epoch=epoch))
    index = torch.cat([batch.index for batch in batches])
    assert index.sort().values.tolist() == list(range(count))
    assert [len(batch.labels) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == -(-count // batch_size)  # the incomplete last batch is kept


def test_the_order_is_a_function_of_seed_and_epoch():
    data = image_set(40)
    assert epoch_order(data, 1, 2) == epoch_order(data, 1, 2)
    orders = {tuple(epoch_order(data, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert tuple(range(40)) not in orders


def test_an_epoch_can_be_made_again_whatever_was_drawn_before():
    data = image_set(10)
    first = list(train_batches(data, 3, AUGMENT, seed=5, epoch=7))
    torch.rand(100)
    list(train_batches(data, 4, AUGMENT, seed=5, epoch=6))
    assert all(same(a, b) for a, b in zip(first, train_batches(data, 3, AUGMENT, seed=5, epoch=7), strict=True))


def test_a_training_batch_holds_the_view_that_its_keys_name():
    data = image_set(20)
    for batch in train_batches(data, 6, AUGMENT, seed=3, epoch=11):
        assert batch.view.tolist() == [11] * len(batch.labels)
        assert torch.equal(batch.labels, batch.index % 3)
        again = augmented(data.images[batch.index], batch.index, batch.view, AUGMENT, seed=3)
        assert torch.equal(batch.images, again.float() / 255)


def test_a_shrunken_epoch_has_the_same_views_and_their_means():
    data = image_set(10)
    whole, small = (list(train_batches(data, 4, AUGMENT, seed=3, epoch=1, side=side)) for side in (None, 2))
    for full, shrunk in zip(whole, small, strict=True):
        assert torch.equal(full.index, shrunk.index)
        assert shrunk.images.shape[2:] == (2, 3)
        assert shrunk.images.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= shrunk.images.min() <= shrunk.images.max() <= 1
        assert torch.allclose(shrunk.images.mean(), full.images.mean(), atol=0.03)


def test_every_pixel_counts_in_a_shrunken_image():
    dark = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    for row, column in ((0, 0), (3, 4), (7, 2)):
        bright = dark.clone()
        bright[:, :, row, column] = 255
        data = ImageSet("made", "made by a test", bright, torch.zeros(1, dtype=torch.int64), ("a",))
        (batch,) = train_batches(data, 1, Augment(), seed=0, epoch=0, side=2)
        assert batch.images.max() > 0.005  # a sixteenth of a pixel or more; without smoothing most pixels are passed over


@pytest.mark.parametrize("side", [0, -1, 5, 100])
def test_images_are_not_enlarged(side):
    with pytest.raises(InputError, match="side must lie between 1 and the 4 pixels"):
        train_batches(image_set(4), 2, AUGMENT, seed=0, epoch=0, side=side)


def test_evaluation_goes_through_the_images_in_order_as_they_are():
    data = image_set(10)
    batches = list(eval_batches(data, 4))
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert np.array_equal(torch.cat([b.images for b in batches]).numpy(), data.images.numpy() / np.float32(255))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), data.labels)
    assert not torch.cat([batch.view for batch in batches]).any()


def test_images_are_float32_with_channels_last():
    data = image_set(5)
    for batch in (*eval_batches(data, 5), *train_batches(data, 5, AUGMENT, seed=0, epoch=0)):
        assert batch.images.dtype == torch.float32
        assert batch.images.stride() == (4 * 6 * 3, 1, 6 * 3, 3)


def test_channel_statistics_are_those_of_numpy():
    data = image_set(30)
    pixels = data.images.numpy().astype(np.float64) / 255
    mean, deviation = channel_statistics(data)
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert deviation == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)


def test_a_subset_keeps_images_and_labels_together():
    data = image_set(9)
    part = data.subset(torch.tensor([7, 0, 7]))
    assert len(part) == 3
    assert torch.equal(part.images, data.images[[7, 0, 7]])
    assert part.labels.tolist() == [1, 0, 1]
    assert (part.name, part.provenance, part.num_classes) == (data.name, data.provenance, 3)


def test_first_takes_what_there_is():
    data = image_set(9)
    assert data.first(4).labels.tolist() == [0, 1, 2, 0]
    assert len(data.first(1000)) == 9


@pytest.mark.parametrize(
    ("labels", "names"),
    [([0, 1, 2], ("a", "b")), ([-1, 0, 1], ("a", "b")), ([], ("a",))],
    ids=["too large", "negative", "empty"],
)
def test_labels_that_do_not_fit_are_refused(labels, names):
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    with pytest.raises(InputError):
        ImageSet("made", "made by a test", images, torch.tensor(labels, dtype=torch.int64), names)


@pytest.mark.parametrize("draw", [lambda data: eval_batches(data, 0), lambda data: data.first(0)])
def test_sizes_below_one_are_refused_at_once(draw):
    with pytest.raises(InputError, match="at least 1"):
        draw(image_set(3))


@pytest.mark.parametrize(("batch_size", "epoch"), [(0, 0), (4, -1)])
def test_training_batches_refuse_bad_numbers_before_the_first_is_drawn(batch_size, epoch):
    with pytest.raises(InputError):
        train_batches(image_set(3), batch_size, AUGMENT, seed=0, epoch=epoch)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_batches():
    data, augment = image_set(200), Augment(crop_padding=1, flip=True, cutout=2)
    here = train_batches(data, 64, augment, seed=1, epoch=2)
    there = train_batches(data.to("cuda"), 64, augment, seed=1, epoch=2)
    assert all(same(a, Batch(*(t.cpu() for t in b))) for a, b in zip(here, there, strict=True))
    assert channel_statistics(data) == channel_statistics(data.to("cuda"))
