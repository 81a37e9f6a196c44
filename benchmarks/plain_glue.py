"""What does an hour on the same cores give without this package?

    python benchmarks/plain_glue.py --minutes 60 --data DIR

A ResNet-20 for a quarter of the time, then a NODE(1) of 64 channels distilled from it for the rest, as one writes them with
PyTorch and torchdiffeq: float32, a stem of two strided convolutions, f of four convolutions with GroupNorm and ReLU and the
time concatenated, dopri5 at 1e-3 with backpropagation through the solve, SGD with Nesterov momentum, batch 128, crops and
flips. Both rates rise over the first tenth of their time and then fall to zero at its end, so that no time is wasted on an
unfinished schedule. Decoding and augmentation are ours, as are the layers of the ResNet (channels-last), all of which favours
the glue. All test images are scored after the last step.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contenders import AsUsual, ByRival
from nodestill.data import Augment, Batch, Dataset, ImageSet, Split, eval_batches, load_image_set, train_batches
from nodestill.experiments.environment import environment
from nodestill.intervals import wilson_interval
from nodestill.models import Activation, ConvDynamics, Norm, Stem, classification_head, resnet, stem
from rows import keep

RESULTS = Path(__file__).parent / "results" / "plain_glue.jsonl"
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # as everyone copies them
_TEMPERATURE, _KD_WEIGHT, _BATCH = 3.0, 0.9, 128
_TEACHERS_SHARE = 0.25


class PlainNode(nn.Module):
    """Stem, torchdiffeq's solve, head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        f = ConvDynamics(channels, norm=Norm.GROUP, activation=Activation.RELU, t1=1.0)
        self.stem, self.f, self.head = stem(Stem.DOWN4, channels), ByRival(AsUsual(f)), classification_head(channels, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        from torchdiffeq import odeint

        images = (images - images.new_tensor(_MEAN).view(3, 1, 1)) / images.new_tensor(_STD).view(3, 1, 1)
        return self.head(odeint(self.f, self.stem(images), torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3)[-1])


def batches(data: ImageSet) -> Iterator[Batch]:
    """Yield batches of crops and flips, epoch after epoch, in PyTorch's usual layout."""
    for epoch in count():
        for batch in train_batches(data, _BATCH, Augment(crop_padding=4, flip=True), seed=0, epoch=epoch):
            yield batch._replace(images=batch.images.contiguous())


def fit(model: nn.Module, loss: Callable[[Batch], Tensor], data: ImageSet, seconds: float, lr: float) -> float:
    """Train for so many seconds; return the epochs that were made."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    started, images = time.perf_counter(), 0
    model.train()
    for step, batch in enumerate(batches(data)):
        progress = (time.perf_counter() - started) / seconds
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = lr * min(10 * progress + 0.01, 0.5 * (1 + math.cos(math.pi * progress)))
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        optimizer.step()
        images += len(batch.labels)
        if step % 50 == 0:
            print(f"{progress:6.1%}  step {step}, loss {float(value.detach()):.3f}", flush=True)
    return images / len(data)


def distillation(student: nn.Module, teacher: nn.Module) -> Callable[[Batch], Tensor]:
    """Return Hinton's loss of a batch."""

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            targets = (teacher(batch.images) / _TEMPERATURE).softmax(1)
        logits = student(batch.images)
        soft = F.kl_div((logits / _TEMPERATURE).log_softmax(1), targets, reduction="batchmean") * _TEMPERATURE**2
        return (1 - _KD_WEIGHT) * F.cross_entropy(logits, batch.labels) + _KD_WEIGHT * soft

    return loss


@torch.no_grad()
def correct(model: nn.Module, data: ImageSet) -> int:
    """Return how many test images are classified rightly."""
    model.eval()
    return sum(int((model(b.images.contiguous()).argmax(1) == b.labels).sum()) for b in eval_batches(data, 500))


def main() -> None:
    """Train teacher and student, score them, keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--lr", type=float, default=0.1)
    options = parser.parse_args()
    torch.manual_seed(0)
    data, test = (load_image_set(Dataset.CIFAR10, split, options.data) for split in (Split.TRAIN, Split.TEST))
    teacher, student, rows = resnet(20, 10, mean=_MEAN, std=_STD), PlainNode(64), []
    labels = lambda batch: F.cross_entropy(teacher(batch.images), batch.labels)  # noqa: E731
    shares = (("teacher", teacher, labels, _TEACHERS_SHARE), ("student", student, None, 1 - _TEACHERS_SHARE))
    for role, model, loss, share in shares:
        seconds = 60 * options.minutes * share
        epochs = fit(model, loss or distillation(student, teacher.eval()), data, seconds, options.lr)
        hits = correct(model, test)
        low, high = wilson_interval(hits, len(test))
        row = {"role": role, "minutes": options.minutes, "lr": options.lr, "seconds": seconds, "epochs": epochs}
        row |= {"accuracy": hits / len(test), "low": low, "high": high, "data": test.provenance}
        rows.append(row | {"environment": environment(torch.device("cpu"))})
        print(rows[-1], flush=True)
        keep(rows, RESULTS, ("role", "minutes", "lr"))


if __name__ == "__main__":
    main()
