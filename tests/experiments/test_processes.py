"""What several processes of a training say, and how they end."""

import time
from functools import partial
from multiprocessing import Pipe, active_children, get_context
from signal import SIGTERM

from nodestill.errors import TimeUp
from nodestill.experiments.processes import _end, _pass_on, _say


def raising(*progress: object) -> None:
    raise TimeUp("stopped by the test")


def test_what_another_process_says_is_shown_until_it_ends():
    heard, said = Pipe(duplex=False)
    for step in (1, 2):
        _say(said, "train", step, 2, "")
    said.close()
    seen = []
    _pass_on(heard, lambda *progress: seen.append(progress), lambda: None, stopped := [])
    assert seen == [("train", 1, 2, ""), ("train", 2, 2, "")]
    assert stopped == []


def test_a_watcher_that_raises_ends_the_processes_of_the_training_and_no_others():
    heard, said = Pipe(duplex=False)
    others, worker = (get_context("spawn").Process(target=time.sleep, args=(60,)) for _ in range(2))
    others.start()
    before = frozenset(active_children())
    worker.start()
    _say(said, "train", 1, 9, "")
    _pass_on(heard, raising, partial(_end, before), stopped := [])
    worker.join(30)
    assert worker.exitcode == -SIGTERM
    assert [type(error) for error in stopped] == [TimeUp]
    assert others.is_alive()
    others.kill()
    others.join()
