"""Files are whole or not there: an interrupt waits, a full disk leaves the old one, a thread writes as well."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from nodestill.whole_files import write_whole


def test_a_folder_is_made_and_a_file_replaced(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_ctrl_c_waits_until_the_file_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_thread_that_is_not_the_main_one_writes_too(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(write_whole, tmp_path / "file", b"whole").result()
    assert (tmp_path / "file").read_bytes() == b"whole"
