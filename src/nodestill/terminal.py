"""What the command shows: progress bars, tables, one-line errors. Nothing else in the package prints."""

import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from nodestill.errors import AuditFailed, InputError, NodestillError, SolveError, TimeUp, TrainingError

console = Console(highlight=False, markup=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = 160  # a table that goes to a file or a pipe is not folded at the usual 80
_LINE_SECONDS = 60.0  # between two lines on the same task, where there is no bar
_DAY, _YEAR = 86_400, 365.25 * 86_400  # seconds
_FAILED_RUN, _CALLERS_MISTAKE, _INTERRUPTED = 1, 2, 130


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> None:
    """Print a table whose first `words` columns are left-aligned and all others right-aligned."""
    table = Table(header_style="bold")
    for number, header in enumerate(headers):
        table.add_column(header, justify="left" if number < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


@contextmanager
def watching(max_seconds: float | None) -> Iterator[Callable[[str, int, int, str], None]]:
    """Show a bar for each task that is reported; raise `TimeUp` from a report after `max_seconds`."""
    ends = None if max_seconds is None else time.monotonic() + max_seconds
    bar = Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
    known: dict[str, TaskID] = {}
    say = _say_now_and_then()

    def watch(task: str, done: int, total: int, note: str) -> None:
        if task not in known:
            known[task] = bar.add_task(task, total=total, note="")
        bar.update(known[task], completed=done)
        if note:
            bar.update(known[task], note=note)
        if not console.is_terminal:
            say(task, done, total, note)
        if ends is not None and time.monotonic() > ends:
            raise TimeUp("The time given by --max-time is over. What is finished is kept: the same command goes on from here.")

    with bar:
        yield watch


def _say_now_and_then() -> Callable[[str, int, int, str], None]:
    """Return what prints a line when a task begins, and one a minute on how far it is, with the last note there was."""
    said: dict[str, float] = {}
    notes: dict[str, str] = {}

    def say(task: str, done: int, total: int, note: str) -> None:
        notes[task] = note or notes.get(task, "")
        now, is_new = time.monotonic(), task not in said
        if is_new or now - said[task] >= _LINE_SECONDS:
            said[task] = now
            console.print(f"{task} ..." if is_new else f"{task}: {done} of {total} {notes[task]}".rstrip(), soft_wrap=True)

    return say


Tasks = Mapping[str, tuple[str, int, int, str]]  # what runs, by any key: what it is called, done, total, note


@contextmanager
def watching_many(max_seconds: float | None) -> Iterator[Callable[[int, int, Tasks, str], None]]:
    """Show one bar for a grid, and one for each of its models that is being worked on; raise `TimeUp` after `max_seconds`.

    What is yielded takes how many models are done, of how many, what runs, and a line to be said above the bars, if any.
    """
    ends = None if max_seconds is None else time.monotonic() + max_seconds
    bar = Progress(
        TextColumn("{task.description:<36}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
    whole = bar.add_task("all models", total=None, note="")
    shown: dict[str, TaskID] = {}

    def show(done: int, total: int, tasks: Tasks, said: str) -> None:
        if said:
            console.print(said, soft_wrap=True)
        bar.update(whole, completed=done, total=total)
        for key in [key for key in shown if key not in tasks]:
            bar.remove_task(shown.pop(key))
        for key, (task, step, steps, note) in tasks.items():
            shown[key] = shown[key] if key in shown else bar.add_task(task, total=steps, note="")
            bar.update(shown[key], description=task, completed=step, total=steps, note=note)
        if ends is not None and time.monotonic() > ends:
            raise TimeUp("The time given by --max-time is over. What is finished is kept: the same command goes on from here.")

    with bar:
        yield show


_NUMBER = r"(\d*\.?\d+)"
_TIME = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?|{_NUMBER}")


def seconds_of(text: str) -> float:
    """Return the seconds that "90", "90s", "20m", "1.5h" or "2h20m" mean.

    Raises:
        InputError: If the text is none of these.
    """
    found = _TIME.fullmatch(text)
    hours, minutes, seconds, bare = (float(part or 0) for part in found.groups()) if found else (0.0,) * 4
    total = 3600 * hours + 60 * minutes + seconds + bare
    if not 0 < total < float("inf"):
        raise InputError(f"--max-time must be a time such as 90s, 20m, 1.5h or 2h20m, got {text!r}.")
    return total


def time_of(seconds: float) -> str:
    """Return how long so many seconds are, in the unit that suits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / _DAY:.0f} days" if seconds < 2 * _YEAR else f"{seconds / _YEAR:.1f} years"


def counted(number: int, noun: str) -> str:
    """Return "1 model", "2 models", "0 models"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run_guarded(command: Callable[[], object], debug: bool) -> int:
    """Run a command and return its exit code; a failure is one sentence on stderr, with a traceback only if `debug`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        command()
    except BaseException as error:
        if debug or isinstance(error, SystemExit):
            raise
        code, sentence = _verdict(error)
        errors.print(f"[bold red]nodestill:[/] {_escaped(' '.join(sentence.split()))}")
        return code
    return 0


def _verdict(error: BaseException) -> tuple[int, str]:
    from cyclopts import CycloptsError

    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, "stopped. What is finished is kept: the same command goes on from here."
    if isinstance(error, TrainingError | SolveError | TimeUp | AuditFailed):
        return _FAILED_RUN, str(error)
    if isinstance(error, NodestillError):
        return _CALLERS_MISTAKE, str(error)
    if isinstance(error, CycloptsError):
        return _CALLERS_MISTAKE, _of_the_words(error)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: say no more at exit either
        return _FAILED_RUN, "the output was closed."
    return _FAILED_RUN, f"internal error, {type(error).__name__}: {error}. Add --debug for the traceback, and report it."


def _of_the_words(error: Any) -> str:
    """Return what is wrong with the words of a command, in the words of its help where Cyclopts names none."""
    from cyclopts import MissingArgumentError, UnusedCliTokensError

    if isinstance(error.__cause__, NodestillError):  # of one of our converters
        return str(error.__cause__)
    command = " ".join(["nodestill", *(error.command_chain or ())])
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.app is not None:
        name = error.argument.name
        what = f"{error.keyword} needs a value" if error.keyword else f"`{command}` needs {name.removeprefix('--').upper()}"
        described = error.app.assemble_argument_collection(parse_docstring=True)
        return f"{what}: {next((one.parameter.help for one in described if one.name == name), 'see --help')}"
    if isinstance(error, UnusedCliTokensError) and error.target is not None:
        return _too_many(command, error.target, error.unused_tokens or [])
    return str(error)


def _too_many(command: str, target: Callable[..., object], words: Sequence[str]) -> str:
    said = " ".join(map(repr, words))
    taken = [one.name.upper() for one in signature(target).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    if not taken:
        return f"`{command}` takes options alone, and {said} is none. `{command} --help` lists them."
    return f"`{command}` takes one {taken[0]}, and {said} is too many. Give the command once for each."


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
