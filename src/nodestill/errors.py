"""The exceptions that nodestill raises.

Every message has three parts in one or two sentences: what was wrong with the value seen, what was expected, what to do.
"""


class NodestillError(Exception):
    """Base of all errors that nodestill raises on purpose."""


class InputError(NodestillError, ValueError):
    """A caller's argument has the wrong shape, dtype, range or device."""


class RecipeError(NodestillError, ValueError):
    """A recipe cannot be meant: an unknown field, or values that contradict each other."""


class DataError(NodestillError):
    """Data are missing, truncated or wrong, or a run folder cannot be read or written."""


class SolveError(NodestillError, ArithmeticError):
    """A solve failed: step limit reached, step size underflow, or a non-finite state."""


class TrainingError(NodestillError, ArithmeticError):
    """Training diverged: the loss is no longer a number."""


class TimeUp(NodestillError):
    """The time that was given is over. Everything finished is on disk, and the same command goes on from there."""


class AuditFailed(NodestillError):
    """An audit reached a verdict that the caller asked to fail on."""
