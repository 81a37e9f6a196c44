"""The controls that the paper left out, as cells of the grid.

All but the arms differ from the paper's best cell, or from the cell that `Cell.compared` names, in one thing; discrete twins
differ in rate and size too.
"""

from dataclasses import replace

from nodestill.experiments.model_recipes import Distillation, DistillationObjective, StudentRecipe, TeacherRecipe
from nodestill.reproduction.grid import LONGER, Cell, Grid, Matched, Part
from nodestill.training import Optimizer, Schedule, Training

PAPERS_RATE = 0.001  # of every student
_OPTIMIZERS = (Optimizer.SGD, Optimizer.ADAM)
_HERE = (Part.CONTROLS,)
_RATES = {"scale": "rate of the tables", "paper": "the paper's rate", "tuned": "tuned rate"}


def controls(grid: Grid) -> list[Cell]:
    """Return every control of a grid; the arms whose rate is tuned follow the trainings that decide it."""
    return [
        *arms(grid),
        *_parts_of_the_model(grid),
        *_ways_to_teach(grid),
        *_mistakes(grid),
        *_twins(grid),
        *_horizons(grid),
    ]


def arm_name(taught: bool, optimizer: Optimizer, rate: str) -> str:
    """Return the name of an arm: with or without teacher, by which optimiser, at the scale's, the paper's or a tuned rate."""
    return f"{'kd' if taught else 'labels'}-{optimizer.value}-{rate}"


def arms(grid: Grid) -> list[Cell]:
    """Return {teacher, no teacher} × {SGD, Adam}, at the tables' rates, the paper's, and tuned ones."""
    found = []
    for taught in (True, False):
        for optimizer in _OPTIMIZERS:
            found.append(_arm(grid, taught, optimizer, _usual(grid, optimizer), "scale"))
            found.append(_arm(grid, taught, optimizer, PAPERS_RATE, "paper"))
            found.append(_tuned_arm(grid, taught, optimizer))
    return found


def _tuned_arm(grid: Grid, taught: bool, optimizer: Optimizer) -> Cell:
    usual, rates = _usual(grid, optimizer), _rates(grid, optimizer)
    first = _arm(replace(grid, seed=0), taught, optimizer, usual, "tuned")
    tried = _tried(first, _arm_about(taught, optimizer), rates)
    return replace(_arm(grid, taught, optimizer, usual, "tuned"), tuned=tried)


def _usual(grid: Grid, optimizer: Optimizer) -> float:
    small = grid.scale.shrunk
    return PAPERS_RATE if small is None else small.sgd_rate if optimizer is Optimizer.SGD else small.adam_rate


def _rates(grid: Grid, optimizer: Optimizer) -> tuple[float, ...]:
    return grid.scale.sgd_rates if optimizer is Optimizer.SGD else grid.scale.adam_rates


def _arm(grid: Grid, taught: bool, optimizer: Optimizer, rate: float, which: str) -> Cell:
    best = grid.best()
    plan = replace(best.model.training, optimizer=optimizer, lr=rate)
    model = replace(_student(best), training=plan, distillation=_student(best).distillation if taught else None)
    return Cell(
        name=arm_name(taught, optimizer, which),
        about=f"{_arm_about(taught, optimizer)}, {_RATES[which]}",
        parts=(*_HERE, Part.CLAIMS) if which == "scale" else _HERE,
        model=model,
        seed=grid.seed,
        teacher=best.teacher if taught else None,
        attack=best.attack if which == "scale" else None,  # what tells an effect of the optimiser on robustness from another
        repeated=True,
    )


def _arm_about(taught: bool, optimizer: Optimizer) -> str:
    return f"{'distilled' if taught else 'labels'}, {'SGD' if optimizer is Optimizer.SGD else 'Adam'}"


def _tried(cell: Cell, about: str, rates: tuple[float, ...]) -> tuple[Cell, ...]:
    """Return a cell of seed 0 on nine tenths of the images at each rate, by a teacher that never saw the last tenth either."""
    teacher = None if cell.teacher is None else _held_out(cell.teacher, f"{cell.teacher.name}-held-out")

    def at(rate: float) -> Cell:
        model = _with(cell.model, replace(cell.model.training, lr=rate))
        found = _held_out(replace(cell, model=model), f"{cell.name}-{rate:g}")
        return replace(found, teacher=teacher, about=f"{about}, {rate:g}")

    return tuple(at(rate) for rate in rates)


def _held_out(cell: Cell, name: str) -> Cell:
    plan = replace(cell.model.training, hold_out=True)
    about = f"{cell.about}, on nine tenths"
    alone = replace(cell, name=name, about=about, parts=(), attack=None, paper=None, compared=None, repeated=False)
    return replace(alone, model=_with(cell.model, plan))


def _with(model: TeacherRecipe | StudentRecipe, plan: Training) -> TeacherRecipe | StudentRecipe:
    return replace(model, training=plan)


def _student(cell: Cell) -> StudentRecipe:
    if not isinstance(cell.model, StudentRecipe):
        raise TypeError(f"{cell.name} is no student")
    return cell.model


def _distillation(cell: Cell) -> Distillation:
    distillation = _student(cell).distillation
    if distillation is None:
        raise TypeError(f"{cell.name} has no teacher")
    return distillation


def _changed(base: Cell, name: str, about: str, model: StudentRecipe) -> Cell:
    """Return a control that differs from a cell in its model alone; it is neither attacked nor repeated."""
    named = replace(base, name=name, about=about, parts=_HERE, compared=base.name)
    return replace(named, model=model, attack=None, scored=False, paper=None, repeated=False)


def _parts_of_the_model(grid: Grid) -> list[Cell]:
    best = grid.best()
    student = _student(best)
    changed = [
        _changed(best, "stem-only", "stem alone, distilled", replace(student, t1=0.0)),
        _changed(best, "frozen-f", "f keeps its random weights, distilled", replace(student, frozen=True)),
    ]
    return [replace(cell, repeated=True) for cell in changed]


def _ways_to_teach(grid: Grid) -> list[Cell]:
    best = grid.best()
    student, distillation = _student(best), _distillation(best)
    plain = next(cell for cell in arms(grid) if cell.name == arm_name(False, Optimizer.SGD, "scale"))
    smoothed = replace(_student(plain), training=replace(plain.model.training, label_smoothing=0.1))
    squares = replace(distillation, objective=DistillationObjective.LOGITS)
    reference = _reference_teacher(best.teacher) if best.teacher else None
    return [
        _changed(plain, "label-smoothing", "labels smoothed by 0.1, no teacher, SGD", smoothed),
        replace(_changed(best, "self-distillation", "taught by a NODE(1) trained on labels", student), teacher=plain),
        _changed(best, "logit-mse", "squared logit differences in place of the KL", replace(student, distillation=squares)),
        _changed(best, "once", "teacher asked once per image", replace(student, distillation=replace(distillation, once=True))),
        *([reference] if reference else []),
        replace(_changed(best, "kd-reference", "taught by a teacher of the reference recipe", student), teacher=reference),
    ]


def _reference_teacher(teacher: Cell) -> Cell:
    """Return the same network trained as reference ResNets are: Nesterov momentum, weight decay 5e-4, a linear rate."""
    plan = replace(teacher.model.training, lr=0.1, weight_decay=5e-4, schedule=Schedule.TRIANGLE, milestones=(0.2,))
    named = replace(teacher, name=f"{teacher.name}-reference", about=f"{teacher.about} by the reference recipe", parts=_HERE)
    return replace(named, model=_with(teacher.model, plan), attack=None, paper=None, compared=teacher.name)


def _mistakes(grid: Grid) -> list[Cell]:
    best, undistilled = grid.best(), grid.undistilled(1.0)
    mean = replace(_distillation(best), objective=DistillationObjective.MEAN)
    twice, once_more = (
        replace(_student(cell), training=replace(cell.model.training, double_softmax=True)) for cell in (undistilled, best)
    )
    return [
        _changed(undistilled, "double-softmax", "softmax applied twice, labels", twice),
        _changed(best, "kd-double-softmax", "softmax applied twice, distilled", once_more),
        _changed(best, "kd-mean", "KL averaged over classes too", replace(_student(best), distillation=mean)),
    ]


def _twins(grid: Grid) -> list[Cell]:
    """Return residual networks of the cost of the student whose rate is tuned, each way to count it, at a tuned rate too.

    Sizes follow from what that student measured. As many rates are tried as for it; the deep twin, whose blocks are several
    times as many as the others', tries a quarter of them.
    """
    ways: tuple[Matched, ...] = ("evaluations", "parameters", "macs")
    rates = {way: tuple(rate / 4 if way == "evaluations" else rate for rate in grid.scale.sgd_rates) for way in ways}
    firsts = {way: _twin(replace(grid, seed=0), way) for way in ways}
    return [replace(_twin(grid, way), tuned=_tried(first, _WAYS[way], rates[way])) for way, first in firsts.items()]


def _twin(grid: Grid, way: Matched) -> Cell:
    tuned = _tuned_arm(grid, True, Optimizer.SGD)
    like = _changed(tuned, f"twin-{way}", f"{_WAYS[way]}, {_RATES['tuned']}", _student(tuned))
    return replace(like, tuned=(), twin_of=tuned, matched=way, repeated=True)


_WAYS: dict[Matched, str] = {
    "evaluations": "discrete twin, equal in evaluations of f and in MACs (a block for each)",
    "parameters": "discrete twin, equal in parameters (one block)",
    "macs": "discrete twin, equal in MACs (four wide blocks, a stem as wide)",
}


def _horizons(grid: Grid) -> list[Cell]:
    """Return other end times under SGD and a teacher, and f scaled by 100 on [0, 1] for the two NODE(100)."""
    best, found = grid.best(), []
    for t1 in (2.0, 5.0):
        ended = _changed(best, f"kd-end-{t1:g}", f"end time {t1:g}, distilled, SGD", replace(_student(best), t1=t1))
        found.append(replace(ended, parts=(*_HERE, Part.CLAIMS)))
    for base in (grid.undistilled(LONGER), grid.distilled_long()):
        model = replace(_student(base), t1=1.0, f_scale=LONGER)
        taught = "distilled" if base.teacher else "labels"
        name = "kd-scaled-f" if base.teacher else "scaled-f"
        about = f"{LONGER:g}·f on [0, 1], {taught}"
        parts = (*_HERE, Part.CLAIMS) if base.teacher else _HERE
        found.append(replace(_changed(base, name, about, model), attack=base.attack, parts=parts))
    return found
