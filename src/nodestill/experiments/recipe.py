"""What is asked of an experiment, as one frozen value: teacher, student, its controls, and how they are attacked.

A stage's fingerprint covers only the part it depends on, so that many students share one teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from nodestill.data import Dataset
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.experiments.required import require
from nodestill.training import Training


class Role(Enum):
    """What a model is in its experiment."""

    TEACHER = "teacher"
    DISTILLED = "distilled"
    UNDISTILLED = "undistilled"  # the student trained on labels alone
    STEM_ONLY = "stem-only"  # the distilled student with t1 = 0: what the stem does without the ODE
    TWIN = "discrete-twin"  # the distilled student with residual blocks in place of the ODE, at equal cost


@dataclass(frozen=True)
class Recipe:
    """An experiment: one teacher, one student, the student's controls, and the attack on all of them.

    Args:
        name: What it is called; part of folder names.
        dataset: Which images.
        teacher: The residual network.
        student: The distilled Neural ODE.
        undistilled: How the student is trained without a teacher (the paper changes the optimiser).
        controls: Which further models are trained: undistilled, stem-only, discrete-twin.
        robustness: How all of them are attacked.
        seed: Of initial weights, order and augmentation.
        monitor_images: Test images evaluated after each epoch, for the training curves only.
        about: One line for `nodestill recipes`: what to expect, and what it costs.
    """

    name: str
    dataset: Dataset
    teacher: TeacherRecipe
    student: StudentRecipe
    undistilled: Training
    controls: tuple[Role, ...] = (Role.UNDISTILLED, Role.STEM_ONLY)
    robustness: RobustnessRecipe = field(default_factory=RobustnessRecipe)
    seed: int = 0
    monitor_images: int = 1000
    about: str = ""

    def __post_init__(self) -> None:
        allowed = {Role.UNDISTILLED, Role.STEM_ONLY, Role.TWIN}
        among = "be among undistilled, stem-only and discrete-twin"
        require(set(self.controls) <= allowed, "controls", [role.value for role in self.controls], among)
        require(self.student.distillation is not None, "student.distillation", None, "be set: the student is the distilled one")
        require(self.student.t1 > 0, "student.t1", self.student.t1, "be positive: name stem-only among the controls")
        require(not self.student.twin, "student.twin", True, "be false: name discrete-twin among the controls")
        self.students()  # refuses what does not fit together in a control
        require(self.monitor_images >= 0, "monitor_images", self.monitor_images, "not be negative; 0 switches it off")
        require(-(2**63) <= self.seed < 2**63, "seed", self.seed, "fit into 64 bits")
        plain = bool(self.name) and self.name[0] != "." and "/" not in self.name and self.name.isprintable()
        require(plain, "name", repr(self.name), "be a plain word: it names a folder")

    def students(self) -> dict[Role, StudentRecipe]:
        """Return the distilled student and its controls by role."""
        solved_once = replace(self.student, coarse_epochs=0)  # these have no solver
        variants: dict[Role, Callable[[], StudentRecipe]] = {
            Role.UNDISTILLED: lambda: replace(self.student, distillation=None, training=self.undistilled),
            Role.STEM_ONLY: lambda: replace(solved_once, t1=0.0),
            Role.TWIN: lambda: replace(solved_once, twin=True),
        }
        return {Role.DISTILLED: self.student, **{role: variants[role]() for role in self.controls}}
