"""Fixtures shared by all tests: seeds, determinism, no network; and a tiny experiment for the tests of the command."""

import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the package does, but before torch is imported here

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no wrong answer
hypothesis.settings.load_profile("untimed")


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


@pytest.fixture
def same_threads():
    """Undo --threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """The store of a tiny experiment, made by the command in a process of its own, once for all tests of the command."""
    from cli_runs import made_by_the_command  # here, so that other tests do not load the command

    return made_by_the_command(tmp_path_factory.mktemp("store"))


@pytest.fixture
def copied(store, tmp_path) -> Path:
    """A copy of it that may be changed or damaged."""
    return shutil.copytree(store, tmp_path / "copied")
