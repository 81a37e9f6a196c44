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


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_a_command_waits_until_the_file_is_there(tmp_path, monkeypatch, stop):
    usual = signal.signal(stop, signal.default_int_handler)
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(stop))
    try:
        with pytest.raises(KeyboardInterrupt):
            write_whole(tmp_path / "file", b"whole")
        assert signal.getsignal(stop) is signal.default_int_handler
    finally:
        signal.signal(stop, usual)
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1


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
