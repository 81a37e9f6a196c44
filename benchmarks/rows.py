"""How the rows of a benchmark are kept, as JSON lines, and shown, as tables in markdown."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path


def keep(rows: list[dict], path: Path, settings: tuple[str, ...]) -> list[dict]:
    """Write rows into a JSON-lines file, in place of older answers to the same; return all that it then holds."""
    old = read(path)
    new = {tuple(row.get(k) for k in settings) for row in rows}
    rows = [row for row in old if tuple(row.get(k) for k in settings) not in new] + rows
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def read(path: Path) -> list[dict]:
    """Return the rows of a JSON-lines file; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def markdown(lines: list[list[str]]) -> str:
    """Return a table in markdown; the first two lines are its heads and their alignment."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_script(main: Callable[[], None]) -> None:
    """Run a script; whoever reads what it prints may stop before its end, as `head` does."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be written at exit
        sys.exit(1)
