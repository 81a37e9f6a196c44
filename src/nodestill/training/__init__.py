"""Fitting a model to images: objectives, schedule, loop, evaluation."""

from nodestill.training.evaluation import Evaluation, calibration_error, evaluate
from nodestill.training.lessons import Lesson, distilled, live, once, taught
from nodestill.training.loop import EpochRecord, Learner, fabric_for, set_up, steps_per_epoch, train
from nodestill.training.muon import Muon
from nodestill.training.objectives import Objective, StepLoss, distillation_loss, supervised
from nodestill.training.robust_objectives import adversarially_supervised, ard, rslad
from nodestill.training.schedule import Optimizer, Schedule, Training, learning_rate

__all__ = [
    "EpochRecord",
    "Evaluation",
    "Learner",
    "Lesson",
    "Muon",
    "Objective",
    "Optimizer",
    "Schedule",
    "StepLoss",
    "Training",
    "adversarially_supervised",
    "ard",
    "calibration_error",
    "distillation_loss",
    "distilled",
    "evaluate",
    "fabric_for",
    "learning_rate",
    "live",
    "once",
    "rslad",
    "set_up",
    "steps_per_epoch",
    "supervised",
    "taught",
    "train",
]
