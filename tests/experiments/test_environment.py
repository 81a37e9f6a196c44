"""The account of where a result was made: its commit."""

import subprocess

import pytest

from nodestill.experiments import environment


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository of one commit, with code, rows and the module whose commit is asked for."""
    for name in ("src/code.py", "results/page.py", "benchmarks/results/rows.jsonl", "docs/page.md"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "src" / "code.py"))
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_commit_is_as_it_was_though_rows_were_written(tree):
    commit = environment._commit()
    assert len(commit) == 10
    for rows in ("benchmarks/results/rows.jsonl", "docs/page.md"):
        (tree / rows).write_text("two")
    (tree / "new.txt").write_text("new")
    assert environment._commit() == commit


@pytest.mark.parametrize("code", ["src/code.py", "results/page.py"])
def test_changed_code_marks_its_commit(tree, code):
    commit = environment._commit()
    (tree / code).write_text("two")
    assert environment._commit() == f"{commit}+"


def test_a_commit_of_which_it_is_not_known_whether_it_was_changed_is_none(tree, monkeypatch):
    asked = environment._git
    monkeypatch.setattr(environment, "_git", lambda *words: None if words[0] == "status" else asked(*words))
    assert environment._commit() is None


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "code.py"))
    assert environment._commit() is None
