"""The command: parse, call, print. No logic."""

import sys
from collections.abc import Sequence

from cyclopts import App

from nodestill import __version__
from nodestill.cli.experiment import demo, recipes, report, reproduce, run
from nodestill.cli.model import attack, audit, predict, solvers, verify
from nodestill.terminal import run_guarded

__all__ = ["app", "main"]

app = App(
    name="nodestill",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `run_guarded` says what Ctrl-C leaves behind
    help="Train Neural ODE image classifiers by knowledge distillation, attack them, and see what the numbers mean.\n\n"
    "Start with `nodestill demo`: the whole story on bundled images, in minutes.\n\n"
    "Exit codes: 0 done, 1 a run failed, its time is over or an audit did not pass, 2 a mistake in what was asked, 130 stopped "
    "by Ctrl-C or SIGTERM. What was stopped goes on by the same command.",
)
data_app = App(name="data", help="Look at data sets.")
app.command(data_app)
for command in (demo, run, recipes, attack, audit, solvers, report, reproduce, predict):
    app.command(command)
data_app.command(verify)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code: 0 done, 1 a run failed, 2 a mistake of the caller."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    call = lambda: app(tokens, exit_on_error=False, print_error=False, result_action="return_value")  # noqa: E731
    sys.exit(run_guarded(call, debug="--debug" in tokens))
