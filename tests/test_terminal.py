"""What is shown where there is no terminal: lines instead of bars, and tables that are not folded."""

import os
import subprocess
import sys

import pytest

from nodestill import terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_long_task_says_a_line_a_minute(clock, capsys):
    with terminal.watching(None) as watch:
        for clock[0], done, note in (
            (0.0, 1, ""),
            (30.0, 20, "loss 2.0"),
            (61.0, 40, ""),
            (62.0, 41, ""),
            (130.0, 80, "loss 1.5"),
        ):
            watch("train", done, 100, note)
    assert capsys.readouterr().out.splitlines() == ["train ...", "train: 40 of 100 loss 2.0", "train: 80 of 100 loss 1.5"]


def test_each_task_has_its_own_lines(clock, capsys):
    with terminal.watching(None) as watch:
        watch("train", 1, 2, "")
        watch("attack", 1, 2, "")
        watch("train", 2, 2, "")
    assert capsys.readouterr().out.splitlines() == ["train ...", "attack ..."]


def test_a_piped_table_keeps_a_row_on_one_line():
    program = "from nodestill import terminal; terminal.show_table(['Name', 'What'], [['x' * 60, 'y' * 60]], words=2)"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    out = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
    assert any("x" * 60 in line and "y" * 60 in line for line in out.splitlines())
