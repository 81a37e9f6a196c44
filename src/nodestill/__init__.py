"""Neural ODE image classifiers by knowledge distillation, with robustness numbers that can be believed.

The names below are the public ones; everything else is reached through its sub-package and may change. They are loaded when
first used, so that the command answers at once.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Before torch is loaded: threads that wait by spinning make training many times slower as soon as anything else runs on the
# machine; threads that sleep do not. Settings of the user's are left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# PyTorch then asks Linux for large memory pages, so that fresh tensors cost fewer page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from nodestill.attacks import LinfBudget, fgsm, mi_fgsm, pgd, robustness_sweep
    from nodestill.data import load_image_set
    from nodestill.experiments import Recipe, run
    from nodestill.models import NeuralODEClassifier, resnet
    from nodestill.ode import GradientMode, Solution, Solver, StepControl, solve
    from nodestill.training import distillation_loss, evaluate, train

__version__ = "0.1.0"

_HOMES = {
    "GradientMode": "ode",
    "LinfBudget": "attacks",
    "NeuralODEClassifier": "models",
    "Recipe": "experiments",
    "Solution": "ode",
    "Solver": "ode",
    "StepControl": "ode",
    "distillation_loss": "training",
    "evaluate": "training",
    "fgsm": "attacks",
    "load_image_set": "data",
    "mi_fgsm": "attacks",
    "pgd": "attacks",
    "resnet": "models",
    "robustness_sweep": "attacks",
    "run": "experiments",
    "solve": "ode",
    "train": "training",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name from the sub-package that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nodestill' has no attribute {name!r}")
    return getattr(import_module(f"nodestill.{_HOMES[name]}"), name)
