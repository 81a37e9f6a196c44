"""Scripts of benchmarks/: how they end."""

import subprocess
import sys

from scripts import ROOT


def test_a_reader_that_stops_early_ends_a_script_without_a_word():
    command = [sys.executable, "benchmarks/record.py"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as script:
        script.stdout.close()
        assert script.stderr.read() == ""
    assert script.returncode == 1
