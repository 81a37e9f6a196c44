"""Freed memory that is kept: the next tensor of its size meets no page faults."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from nodestill.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(48, 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
print(keep_freed_memory(), faults() and usual, faults())
"""


def counted(**environment: str) -> list[str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=names | environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_tensor_of_a_size_that_was_freed_meets_no_page_faults():
    kept, usual, after = counted(THP_MEM_ALLOC_ENABLE="0")
    assert kept == "True"
    assert int(usual) > 1000
    assert int(after) < int(usual) / 100


def test_the_users_own_settings_are_left_alone():
    assert counted(MALLOC_ARENA_MAX="2")[0] == "False"


def test_without_glibc_nothing_is_done(monkeypatch):
    from nodestill.training import memory

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
