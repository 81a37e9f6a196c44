"""Two commands do not work in one folder at a time; one that ends, or is killed, holds nothing."""

import signal
import subprocess
import sys

import pytest

from nodestill.errors import InputError
from nodestill.experiments.alone import alone_in

HOLD = """
import sys, time, pathlib
from nodestill.experiments.alone import alone_in
with alone_in(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_until_the_block_ends(tmp_path):
    folder = tmp_path / "run"
    with alone_in(folder):
        with pytest.raises(InputError, match=r"Another command works in .*run\. Wait until it is done"), alone_in(folder):
            pass
        with alone_in(tmp_path / "other"):
            pass
    with alone_in(folder):
        pass
    assert list(folder.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError), alone_in(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
    with alone_in(tmp_path):
        pass
