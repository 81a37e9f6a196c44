"""The hash behind PGD's starts: the published generator, uniform, and a function of (seed, key, radius) alone."""

import pytest
import torch

from attacks import oracles
from nodestill.attacks.random_start import keyed_uniform
from nodestill.data.keyed import Stream


def test_oracle_is_the_published_generator():
    # first outputs of splitmix64.c for the seed 1234567
    assert oracles.splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("seed", [0, 7, 2**62, -1])
def test_numbers_equal_those_from_the_integers_of_python(seed):
    keys = torch.tensor([0, 1, 49_999, -3])
    numbers = keyed_uniform(keys, seed, eps_255=8, count=5)
    expected = [oracles.uniform(key, seed, 8, Stream.ATTACK, 5) for key in keys.tolist()]
    assert torch.equal(numbers.double(), torch.tensor(expected, dtype=torch.float64))


def test_numbers_are_uniform():
    stats = pytest.importorskip("scipy.stats")
    numbers = keyed_uniform(torch.arange(50), seed=0, eps_255=8, count=3072)
    assert numbers.dtype is torch.float32
    assert float(numbers.abs().max()) < 1
    assert stats.kstest(numbers.flatten().double().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


def test_images_radii_and_seeds_are_uncorrelated():
    key = torch.tensor([5])
    settings = [(key, 0, 8), (key + 1, 0, 8), (key, 1, 8), (key, 0, 9), (key + 2**40, 0, 8)]
    rows = torch.cat([keyed_uniform(keys, seed, eps, 20_000) for keys, seed, eps in settings])
    correlation = torch.corrcoef(torch.cat([rows, rows[:1].roll(1, 1)])) - torch.eye(6)
    assert float(correlation.abs().max()) < 5 / 20_000**0.5


def test_numbers_belong_to_the_image_not_to_the_batch(generator):
    keys = torch.arange(40)
    whole = keyed_uniform(keys, seed=3, eps_255=8, count=12)
    order = torch.randperm(40, generator=generator)
    assert torch.equal(keyed_uniform(keys[order], seed=3, eps_255=8, count=12), whole[order])
    assert torch.equal(keyed_uniform(keys[17:18], seed=3, eps_255=8, count=12), whole[17:18])
