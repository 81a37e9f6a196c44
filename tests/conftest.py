"""Fixtures shared by all tests: seeds, determinism, no network, one image set small enough to train on in seconds."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the package does, but before torch is imported here

import pytest
import torch


@pytest.fixture(autouse=True)
def deterministic():
    """Make every test start from the same global random state and forbid nondeterministic kernels."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with a fixed seed, to be passed where randomness is an argument."""
    return torch.Generator().manual_seed(0)
