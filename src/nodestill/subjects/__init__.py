"""Models as subjects of an attack: ours, those that call torchdiffeq, and anybody's from a file."""

from nodestill.subjects.from_file import subject_from_file
from nodestill.subjects.of_model import subject_of_model
from nodestill.subjects.of_torchdiffeq import subject_of_torchdiffeq

__all__ = ["subject_from_file", "subject_of_model", "subject_of_torchdiffeq"]
