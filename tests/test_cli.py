"""The command: what it and each of its parts say, and that they say it wherever it goes."""

import pytest
from PIL import Image

import tiny
from cli_runs import called, finished, launched
from nodestill import __version__
from nodestill.experiments import Store

pytestmark = pytest.mark.usefixtures("same_threads")


def test_alone_it_shows_what_it_can(capsys):
    code, out, err = called(capsys)
    assert (code, err) == (0, "")
    assert all(name in out for name in ("demo", "run", "recipes", "attack", "report", "predict", "data"))
    assert called(capsys, "--help")[1] == out
    assert called(capsys, "--version")[1].strip() == __version__


@pytest.mark.parametrize(
    "name", ["demo", "run", "recipes", "attack", "solvers", "report", "reproduce", "predict", "data verify"]
)
def test_every_command_has_help_and_can_be_debugged(name, capsys):
    code, out, err = called(capsys, *name.split(), "--help")
    assert (code, err) == (0, "")
    assert "--debug" in out


def test_recipes_are_listed_and_shown(capsys):
    assert "cifar10-smoke" in called(capsys, "recipes")[1]
    assert '"channels": 512' in called(capsys, "recipes", "--show", "paper-cifar10-node1")[1]


def test_data_are_summarised(capsys):
    code, out, _ = called(capsys, "data", "verify", "digits")
    assert code == 0
    assert "1437" in out
    assert "360" in out


def test_an_attack_prints_its_rows_and_makes_them_once(copied, capsys):
    arguments = ["attack", "tiny", "--eps", "0,16", "--attacks", "pgd", "--images", "30", "--store", copied]
    code, out, err = called(capsys, *arguments)
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines() if "pgd" in line]
    before = tiny.contents(copied)
    again = called(capsys, *arguments)[1]
    assert again in out  # the same table, without the progress before it
    assert tiny.contents(copied) == before


ROUNDED = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(192, 10)

    def forward(self, x):
        return self.head((8 * x).round().flatten(1))
"""


def test_an_attack_without_gradients_says_so(tmp_path, capsys):
    (tmp_path / "rounded.py").write_text(ROUNDED)
    arguments = ["attack", tmp_path / "rounded.py:Net", "--dataset", "digits", "--eps", "0,8", "--images", "20"]
    code, out, err = called(capsys, *arguments, "--store", tmp_path)
    assert (code, err) == (0, "")
    assert "20 of 20 images had a step without gradient" in out
    assert "upper bounds" in out
    sound = called(capsys, *arguments, "--attacks", "mi-fgsm,square", "--protocol", "sound", "--store", tmp_path)[1]
    assert "had a step without gradient" in sound
    assert "upper bounds" not in sound
    assert "Square" in sound  # what each attack added


def test_a_model_is_scored_under_other_solvers(copied, capsys):
    code, out, err = called(capsys, "solvers", "tiny", "--images", "40", "--store", copied)
    assert (code, err) == (0, "")
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    rows = [line for line in lines if line[2]]  # a long name goes on in the next line
    kept = Store(copied).folder(next(copied.glob("student-*-node1-kd-*")).name).rows("solvers.jsonl")
    assert [row[2] for row in rows] == [f"{row['accuracy']:.2%}" for row in kept]
    assert [row[5] for row in rows] == [f"{row['evaluations']:.1f}" for row in kept]
    said = " ".join(" ".join(line[1] for line in lines).split())
    assert said.startswith("euler, 2 steps euler, 8 steps rk4, 2 steps dopri5, tolerance 1e-05 none, t1 = 0 euler, 2 steps")


def test_images_are_classified_and_their_names_printed_as_they_are(store, tmp_path, capsys):
    path = tmp_path / "[bold]x[" / "a].png"
    path.parent.mkdir()
    Image.new("L", (8, 8)).save(path)
    code, out, err = called(capsys, "predict", "tiny:teacher", path, "--store", store)
    assert (code, err) == (0, "")
    assert str(path) in "".join(line.split("│")[1].strip() for line in out.splitlines() if "│" in line)


def test_a_report_goes_where_it_is_told(store, tmp_path, capsys):
    out = tmp_path / "a-long-name-of-a-folder-so-that-the-line-is-wider-than-a-terminal" / "mine.html"
    code, said, err = called(capsys, "report", "tiny", "--store", store, "--out", out)
    assert (code, err) == (0, "")
    assert f"Report: {out}\n" in said
    assert out.read_text() == (store / "tiny" / "report.html").read_text()


def test_an_output_that_nobody_reads_is_no_traceback():
    process = launched("recipes", "--show", "demo")
    process.stdout.close()
    assert process.wait(60) == 1
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_terminal_without_unicode_is_no_traceback(store):
    code, out, err = finished("report", "tiny", "--store", store, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (code, err) == (0, "")
    assert "NODE(1)" in out
