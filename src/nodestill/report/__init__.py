"""Tables, figures and one self-contained page from the rows of an experiment. Reads records only: no weights, no device."""

from nodestill.report.audit_page import hunted_table, write_audit_report
from nodestill.report.figures import accuracy_figure, evaluations_figure, robustness_figure, training_figure
from nodestill.report.grid_page import write_reproduction
from nodestill.report.page import write_report
from nodestill.report.sentences import sentences
from nodestill.report.tables import Table, accuracy_table

__all__ = [
    "Table",
    "accuracy_figure",
    "accuracy_table",
    "evaluations_figure",
    "hunted_table",
    "robustness_figure",
    "sentences",
    "training_figure",
    "write_audit_report",
    "write_report",
    "write_reproduction",
]
