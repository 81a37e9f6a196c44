"""Which trained students do the other benchmarks measure?

    python benchmarks/trained.py --data DIR

NODE(1), NODE(10) and NODE(100) with a f of 64 channels and four convolutions on 8x8 states, trained on labels alone, on tens of
thousands of images of CIFAR-10 and for minutes: enough that f is no longer what it was initialised to, and no more. Their
accuracy is not a result. They are made once and kept in benchmarks/.models, weights and an account of their training together.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodestill.data import Augment, Dataset, ImageSet, Split, channel_statistics, load_image_set
from nodestill.experiments.environment import environment
from nodestill.experiments.members import build_model
from nodestill.experiments.model_recipes import StudentRecipe
from nodestill.experiments.store import RunFolder
from nodestill.models import NeuralODEClassifier, Norm, Stem
from nodestill.ode import GradientMode, Method, Solver
from nodestill.precision import Precision
from nodestill.training import supervised
from nodestill.training.evaluation import evaluate
from nodestill.training.loop import EpochRecord, fabric_for, set_up, train
from nodestill.training.schedule import Optimizer, Schedule, Training

MODELS = Path(__file__).parent / ".models"
HORIZONS = (1.0, 10.0, 100.0)
TRAINING_IMAGES = {  # a longer horizon costs more evaluations an image, and so does a f without norm
    Norm.GROUP: {1.0: 40_000, 10.0: 30_000, 100.0: 20_000},
    Norm.NONE: {1.0: 40_000, 10.0: 10_000, 100.0: 6_000},
}
_TEST_IMAGES = 1_000
_CLASSES = 10


def trained(horizon: float, norm: Norm, data: Path) -> NeuralODEClassifier:
    """Return a trained NODE(horizon) in evaluation mode, solved by dopri5 at 1e-3; trained now if it has not been."""
    folder = RunFolder(MODELS / f"node{horizon:g}-{norm.value}")
    if not folder.is_done:
        _make(horizon, norm, data, folder)
    model = build_model(_recipe(horizon, norm), 0, _CLASSES)
    folder.load_weights(model)  # the statistics of the training images among them
    return model.with_solver(Solver()).eval()


def test_images(data: Path, count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images, in [0, 1] and channels-last, and their labels."""
    some = load_image_set(Dataset.CIFAR10, Split.TEST, data).first(count)
    return some.images.contiguous(memory_format=torch.channels_last).float().div_(255), some.labels


def account(horizon: float, norm: Norm) -> dict[str, Any]:
    """Return how a model was trained and what it reached."""
    return RunFolder(MODELS / f"node{horizon:g}-{norm.value}").read("training.json")


def _recipe(horizon: float, norm: Norm) -> StudentRecipe:
    """Return how a student is built and trained: f starts as 0, and learns the slower the longer it is integrated."""
    solver = Solver(Method.BOSH3, rtol=1e-2, atol=1e-2, gradient=GradientMode.DIRECT, precision=Precision.BFLOAT16)
    plan = Training(
        Optimizer.ADAM,
        0.004 / horizon**0.2,
        1,
        batch_size=64,
        schedule=Schedule.TRIANGLE,
        milestones=(0.25,),
        augment=Augment(flip=True),
        precision=Precision.BFLOAT16,
    )
    return StudentRecipe(Stem.DOWN4, 64, horizon, solver, plan, None, norm=norm, zero_last=True)


def _make(horizon: float, norm: Norm, data: Path, folder: RunFolder) -> None:
    """Train a student, score it, and write both down."""
    images = load_image_set(Dataset.CIFAR10, Split.TRAIN, data).first(TRAINING_IMAGES[norm][horizon])
    recipe, started = _recipe(horizon, norm), time.perf_counter()
    model = build_model(recipe, 0, _CLASSES, *channel_statistics(images))
    record = _fit(model, recipe.training, images)
    seconds = time.perf_counter() - started
    scores = _scores(model.with_solver(Solver()).eval(), load_image_set(Dataset.CIFAR10, Split.TEST, data).first(_TEST_IMAGES))
    found = {"horizon": horizon, "norm": norm.value, "images": len(images), "provenance": images.provenance, **scores}
    found |= {"seconds": seconds, "epoch": record, "recipe": recipe, "environment": environment(torch.device("cpu"))}
    folder.save_weights(model)
    folder.write("training.json", found)
    folder.finish()


def _fit(model: NeuralODEClassifier, plan: Training, images: ImageSet) -> EpochRecord:
    learner = set_up(model, plan, fabric_for("cpu", precision=plan.precision))
    records: list[EpochRecord] = []

    def say(step: int, loss: float) -> None:
        if loss == loss:
            print(f"  NODE({model.t1:g}): step {step}, loss {loss:.3f}", flush=True)

    train(learner, supervised(learner.model), images, plan, seed=0, on_epoch=records.append, on_step=say)
    return records[-1]


def _scores(model: NeuralODEClassifier, images: ImageSet) -> dict[str, Any]:
    """Return accuracy and loss on test images, and the evaluations that the solve of the first hundred took."""
    scores = evaluate(model, images, 100)
    with torch.no_grad():
        counts = model.predict(images.first(100).images.float().div(255)).evaluations
    spread = {"evaluations": float(counts.double().mean()), "evaluations_range": [int(counts.min()), int(counts.max())]}
    return {"test_images": len(images), "accuracy": scores.accuracy, "loss": scores.loss, **spread}


def main() -> None:
    """Make the models that are not there yet and say what they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--horizons", type=float, nargs="+", default=HORIZONS)
    parser.add_argument("--norms", nargs="+", choices=[norm.value for norm in Norm], default=["group", "none"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for norm in map(Norm, options.norms):
        for horizon in options.horizons:
            trained(horizon, norm, options.data)
            of = account(horizon, norm)
            print(
                f"NODE({horizon:g}), norm {norm.value}: accuracy {of['accuracy']:.1%}, evaluations {of['evaluations']:.0f} "
                f"{of['evaluations_range']}, {of['images']} images, {of['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
