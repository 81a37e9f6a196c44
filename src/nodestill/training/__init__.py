"""Fitting a model to images: objectives, schedule, loop, evaluation."""

from nodestill.training.evaluation import Evaluation, calibration_error, evaluate
from nodestill.training.objectives import Objective, StepLoss, distillation_loss, distilled, supervised
from nodestill.training.schedule import Optimizer, Schedule, Training, learning_rate

__all__ = [
    "Evaluation",
    "Objective",
    "Optimizer",
    "Schedule",
    "StepLoss",
    "Training",
    "calibration_error",
    "distillation_loss",
    "distilled",
    "evaluate",
    "learning_rate",
    "supervised",
]
