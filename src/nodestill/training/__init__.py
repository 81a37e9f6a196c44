"""Fitting a model to images: objectives, schedule, loop, evaluation."""

from nodestill.training.evaluation import Evaluation, calibration_error, evaluate
from nodestill.training.loop import EpochRecord, Learner, fabric_for, set_up, steps_per_epoch, train
from nodestill.training.muon import Muon
from nodestill.training.objectives import Objective, StepLoss, distillation_loss, distilled, supervised
from nodestill.training.schedule import Optimizer, Schedule, Training, learning_rate

__all__ = [
    "EpochRecord",
    "Evaluation",
    "Learner",
    "Muon",
    "Objective",
    "Optimizer",
    "Schedule",
    "StepLoss",
    "Training",
    "calibration_error",
    "distillation_loss",
    "distilled",
    "evaluate",
    "fabric_for",
    "learning_rate",
    "set_up",
    "steps_per_epoch",
    "supervised",
    "train",
]
