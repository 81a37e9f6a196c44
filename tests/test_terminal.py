"""What is shown where there is no terminal: lines instead of bars, and tables that are not folded."""

import os
import subprocess
import sys

import pytest

from nodestill import terminal
from nodestill.errors import InputError


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


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), ("2h20m", 8400), ("1h5s", 3605), (".5m", 30)]
)
def test_a_time_is_understood(text, seconds):
    assert terminal.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5m", "2h20", "20m2h", "soon", "inf", "nan", "1e400", "m", "1 h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InputError, match="--max-time must be a time such as"):
        terminal.seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (89.0, "89 s"),
        (600.0, "10 min"),
        (7200.0, "2.0 h"),
        (40 * 86_400.0, "40 days"),
        (1325 * 86_400.0, "3.6 years"),
    ],
)
def test_a_time_is_said_in_the_unit_that_suits(seconds, said):
    assert terminal.time_of(seconds) == said


def test_one_is_no_plural():
    assert [terminal.counted(number, "model") for number in (0, 1, 2)] == ["0 models", "1 model", "2 models"]
