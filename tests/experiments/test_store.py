"""Run folders: what was written whole is read back, what was cut is one clear error, and a failed write loses nothing."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nodestill.errors import DataError
from nodestill.experiments import RunFolder, Store


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return Store(tmp_path).folder("run")


def model(width: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(9 * width, 2))


def stepped(kind, seed: int = 0, **settings) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and its optimiser after two steps."""
    net = model(seed=seed).to(memory_format=torch.channels_last)
    optimizer = kind(net.parameters(), lr=0.1, **settings)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.rand(4, 3, 5, 5)).square().sum().backward()
        optimizer.step()
    return net, optimizer


def test_values_and_rows_come_back(folder):
    assert not folder.is_done
    assert folder.rows("rows.jsonl") == []
    folder.write("a.json", {"x": (1, 2.5, None), "ü": "[/]"})
    folder.append("rows.jsonl", {"n": 1})
    folder.append("rows.jsonl", {"n": 2})
    assert folder.read("a.json") == {"x": [1, 2.5, None], "ü": "[/]"}
    assert folder.rows("rows.jsonl", "n") == [{"n": 1}, {"n": 2}]
    folder.write_rows("rows.jsonl", folder.rows("rows.jsonl")[:1])
    assert folder.rows("rows.jsonl") == [{"n": 1}]
    assert sorted(path.name for path in folder.path.iterdir()) == ["a.json", "rows.jsonl"]  # no temporary files


def test_numbers_come_back_to_the_bit(folder):
    values = [0.1 + 0.2, 1 / 3, 1e-300, 2**53 + 1, float("inf")]
    folder.write("a.json", values)
    assert folder.read("a.json") == values


def test_done_is_written_last_and_what_only_a_resume_needs_is_removed(folder):
    net, optimizer = stepped(torch.optim.SGD)
    folder.save_state(net, optimizer, 1)
    folder.finish()
    assert folder.is_done
    assert sorted(path.name for path in folder.path.iterdir()) == ["DONE"]
    folder.finish()  # killed between the two: again is no harm


def test_weights_come_back_to_the_bit_buffers_too(folder):
    net, _ = stepped(torch.optim.SGD)
    folder.save_weights(net)
    other = model(seed=1)
    folder.load_weights(other)
    for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}), (torch.optim.Adam, {})],
)
def test_the_state_of_an_optimiser_comes_back_to_the_bit(folder, kind, settings):
    (net, optimizer), (other, again) = stepped(kind, 0, **settings), stepped(kind, 1, **settings)
    folder.save_state(net, optimizer, 7)
    assert folder.load_state(other, again) == 7
    state, same = optimizer.state_dict(), again.state_dict()
    assert state["param_groups"] == same["param_groups"]
    for key, values in state["state"].items():
        for name, value in values.items():
            assert value is same["state"][key][name] is None or torch.equal(value, same["state"][key][name])
    assert bool(settings or kind is torch.optim.Adam) == any(v for values in state["state"].values() for v in map(bool, values))


def test_without_a_state_training_starts_at_the_beginning(folder):
    net, optimizer = stepped(torch.optim.SGD)
    assert folder.load_state(net, optimizer) == 0


# Damage


def damaged(folder: RunFolder, name: str, keep: float) -> None:
    path = folder.path / name
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * keep)])


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_cut_files_are_one_clear_error(folder, keep):
    net, optimizer = stepped(torch.optim.Adam)
    folder.write("recipe.json", {"a": 1, "b": 2})
    folder.write_rows("rows.jsonl", [{"a": 1}, {"a": "two"}])
    folder.save_weights(net)
    folder.save_state(net, optimizer, 1)
    for name, read in {
        "recipe.json": lambda: folder.read("recipe.json"),
        "weights.safetensors": lambda: folder.load_weights(net),
        "state.safetensors": lambda: folder.load_state(net, optimizer),
        "rows.jsonl": lambda: folder.rows("rows.jsonl"),
    }.items():
        damaged(folder, name, keep)
        if (name, keep) == ("rows.jsonl", 0.0):
            assert read() == []
            continue
        with pytest.raises(DataError, match=rf"{name} is damaged \(.*Remove .*again") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_damage(folder):
    folder.write("a.json", {})
    (folder.path / "a.json").write_bytes(b"\xff\xfe")
    for read in (folder.read, folder.rows):
        with pytest.raises(DataError, match="damaged"):
            read("a.json")


@pytest.mark.parametrize("content", ["[1]", "3", '{"b": 1}', "null"])
def test_what_lacks_a_field_is_damage(folder, content):
    folder.write("a.json", {})
    (folder.path / "a.json").write_text(content)
    for read in (folder.read, folder.rows):
        with pytest.raises(DataError, match=r"damaged \(it lacks a\)"):
            read("a.json", "a")


def test_missing_files_say_what_to_do(folder):
    for read in (lambda: folder.read("recipe.json"), lambda: folder.load_weights(model())):
        with pytest.raises(DataError, match=r"(recipe.json|weights.safetensors) is missing\. Run the recipe"):
            read()


def test_weights_and_state_of_another_model_are_refused(folder):
    net, optimizer = stepped(torch.optim.Adam)
    folder.save_weights(net)
    folder.save_state(net, optimizer, 1)
    other = model(width=5)
    with pytest.raises(DataError, match=r"weights.safetensors does not fit its recipe \(.*size mismatch"):
        folder.load_weights(other)
    with pytest.raises(DataError, match=r"state.safetensors does not fit its recipe \(.*size mismatch"):
        folder.load_state(other, torch.optim.Adam(other.parameters()))


def test_weights_are_no_state(folder):
    net, optimizer = stepped(torch.optim.Adam)
    folder.save_weights(net)
    (folder.path / "weights.safetensors").rename(folder.path / "state.safetensors")
    with pytest.raises(DataError, match=r"state.safetensors does not fit"):
        folder.load_state(net, optimizer)


# Failed writes


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_is_one_clear_error_and_loses_nothing(folder, monkeypatch, where):
    folder.write("a.json", {"old": 1})
    folder.append("rows.jsonl", {"old": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full) if where == "fsync" else monkeypatch.setattr(Path, "replace", full)
    for write in (
        lambda: folder.write("a.json", {"new": 2}),
        lambda: folder.append("rows.jsonl", {"new": 2}),
        lambda: folder.save_weights(nn.Linear(2, 2)),
        folder.finish,
    ):
        with pytest.raises(DataError, match=r"Cannot write .*: No space left on device\. Everything finished before is kept"):
            write()
    assert folder.read("a.json") == {"old": 1}
    assert folder.rows("rows.jsonl") == [{"old": 1}]
    assert not folder.is_done
    assert sorted(path.name for path in folder.path.iterdir()) == ["a.json", "rows.jsonl"]


def test_a_place_that_cannot_be_a_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null/x")):
        with pytest.raises(DataError, match=r"Cannot write .*choose another folder with --store"):
            Store(root).folder("run").write("a.json", {})


WRITER = """
import sys
from pathlib import Path
from nodestill.experiments.store import RunFolder
folder = RunFolder(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    folder.write("a.json", {"number": number, "filler": [number] * 20000})
    folder.append("rows.jsonl", {"number": number, "filler": [number] * 2000})
    if number == 2:
        print("started", flush=True)
"""


def test_a_kill_during_a_write_leaves_a_readable_folder(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"started\n"
    try:
        writer.wait(0.15)
    except subprocess.TimeoutExpired:
        writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    folder = RunFolder(tmp_path)
    last = folder.read("a.json")
    assert set(last["filler"]) == {last["number"]}
    numbers = [row["number"] for row in folder.rows("rows.jsonl")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert last["number"] - len(numbers) in (0, 1)
