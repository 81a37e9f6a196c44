"""Runs `compile_cases.py` in an interpreter of its own: a compiler cannot look through the type checks of these tests."""

import re
import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("compile_cases.py")


def test_what_compiles():
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", CASES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CASES.parent.parent.parent)
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"(21 passed|19 passed, 2 skipped)", done.stdout)
