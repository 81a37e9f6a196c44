"""Exact positions: bytes stay bytes, steps add up without drift, an unmoved pixel keeps its bits."""

import pytest
import torch

from nodestill.attacks.lattice import Lattice


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("made_by", ["division", "multiplication"])
def test_every_byte_moves_to_every_byte_exactly(dtype, made_by):
    values = torch.arange(256, dtype=dtype)
    pixels = values / 255 if made_by == "division" else values * torch.tensor(1 / 255, dtype=dtype)
    images = pixels.clamp(max=1).view(1, 1, 1, 256).expand(1, 3, 1, 256)
    lattice = Lattice.around(images)
    torch.testing.assert_close(lattice.origin / lattice.unit, values.expand(1, 3, 1, 256), atol=0, rtol=0)
    for steps in range(-20, 21):
        moved = lattice.at(lattice.move(lattice.origin, torch.full_like(images, steps), eps_255=20))
        expected = pixels.clamp(max=1) if steps == 0 else (values + steps).clamp(0, 255) / 255
        assert torch.equal(moved, expected.expand(1, 3, 1, 256))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_off_the_grid_move_by_the_step_and_come_back_with_their_bits(generator, dtype):
    images = torch.rand((4, 3, 8, 8), generator=generator, dtype=dtype) * 0.8 + 0.1
    lattice = Lattice.around(images)
    position = lattice.origin
    for _ in range(20):
        position = lattice.move(position, torch.ones_like(images), eps_255=20)
    torch.testing.assert_close(lattice.at(position), images + 20 / 255, atol=2 * torch.finfo(dtype).eps, rtol=0)
    for _ in range(20):
        position = lattice.move(position, -torch.ones_like(images), eps_255=20)
    assert torch.equal(lattice.at(position), images)


def test_the_radius_binds():
    images = torch.full((1, 3, 1, 1), 0.5)
    lattice = Lattice.around(images)
    position = lattice.move(lattice.origin, torch.full_like(images, 9), eps_255=4)
    assert torch.equal(position - lattice.origin, torch.full_like(images, 4 * lattice.unit))
