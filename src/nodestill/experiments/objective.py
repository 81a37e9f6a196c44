"""What a member's training minimises: by its recipe, its teacher, and the images that an attack finds."""

from collections.abc import Callable
from typing import Any

from torch import nn

from nodestill.data import Batch
from nodestill.experiments.inner_attack import inner_attack
from nodestill.experiments.kept_lessons import kept
from nodestill.experiments.loaded import load_run
from nodestill.experiments.member_training import MemberTraining
from nodestill.experiments.model_recipes import Distillation, DistillationObjective, StudentRecipe, TeacherRecipe
from nodestill.training import Objective, StepLoss, distillation_loss, supervised
from nodestill.training.lessons import Lesson, live, once, taught
from nodestill.training.matching import logit_loss, mean_loss
from nodestill.training.robust_objectives import adversarially_supervised, ard, rslad


def objective_of(wrapped: nn.Module, model: nn.Module, asked: MemberTraining) -> Objective:
    """Return what is minimised: by the model as Fabric wrapped it, at images that an attack finds on the model itself."""
    recipe, smoothing, teacher = asked.member.model, asked.member.training.label_smoothing, teacher_of(asked)
    if isinstance(recipe, StudentRecipe) and recipe.distillation is not None and teacher is not None:
        return _taught(wrapped, model, teacher, asked, recipe.distillation)
    if isinstance(recipe, TeacherRecipe) and recipe.adversarial is not None:
        perturb = inner_attack(model, recipe.adversarial, asked.member.seed)
        return adversarially_supervised(wrapped, perturb, label_smoothing=smoothing)
    return supervised(wrapped, label_smoothing=smoothing, double_softmax=asked.member.training.double_softmax)


def _taught(
    wrapped: nn.Module, model: nn.Module, teacher: nn.Module, asked: MemberTraining, settings: Distillation
) -> Objective:
    plan, temperature, weight = asked.member.training, settings.temperature, settings.kd_weight
    lesson = once(teacher, asked.train_set, mirrored=plan.augment.flip) if settings.once else _asked_always(teacher, asked)
    perturb, smoothing = inner_attack(model, settings.adversarial, asked.member.seed), plan.label_smoothing
    match settings.objective:
        case DistillationObjective.ARD:
            return ard(wrapped, lesson, perturb, temperature=temperature, kd_weight=weight, label_smoothing=smoothing)
        case DistillationObjective.RSLAD:
            return rslad(wrapped, lesson, perturb, temperature=temperature, kd_weight=weight)
        case DistillationObjective.HINTON | DistillationObjective.MEAN | DistillationObjective.LOGITS:
            return taught(
                wrapped,
                lesson,
                temperature=temperature,
                kd_weight=weight,
                label_smoothing=smoothing,
                double_softmax=plan.double_softmax,
                loss=_at_clean_images(settings.objective),
            )


def _asked_always(teacher: nn.Module, asked: MemberTraining) -> Lesson:
    lesson, folder = live(teacher), asked.teacher and asked.store.folder(asked.teacher.folder)
    return kept(lesson, folder, asked) if folder and asked.keeps_lessons else lesson


def _at_clean_images(objective: DistillationObjective) -> Callable[..., StepLoss]:
    match objective:
        case DistillationObjective.MEAN:
            return mean_loss
        case DistillationObjective.LOGITS:
            return logit_loss
        case _:
            return distillation_loss


def in_precision_of(fabric: Any, objective: Objective) -> Objective:
    """Return an objective whose teacher computes in the precision that Fabric gives the model."""

    def run(batch: Batch) -> StepLoss:
        with fabric.autocast():
            return objective(batch)

    return run


def teacher_of(asked: MemberTraining) -> nn.Module | None:
    """Return who teaches a member, on the device of its images; None of a training on labels alone."""
    if asked.teacher is None:
        return None
    return load_run(asked.store.folder(asked.teacher.folder), asked.train_set.images.device).model
