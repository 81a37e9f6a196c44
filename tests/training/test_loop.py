"""The training loop: against a loop written out by hand, stopped and resumed, and shared among processes."""

import logging
import logging.handlers
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tiny
from nodestill.data import Augment, Batch, train_batches
from nodestill.errors import InputError, TrainingError
from nodestill.precision import Precision
from nodestill.training import Optimizer, Schedule, StepLoss, Training, learning_rate, supervised
from nodestill.training.loop import _share_of, fabric_for, set_up, steps_per_epoch, train


class Small(nn.Module):
    """A classifier of 8x8 images without any coupling between the images of a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def fitted(plan: Training, *, count: int = 40, seed: int = 5) -> tuple[nn.Module, list, list]:
    model, records, steps = Small(), [], []
    learner = set_up(model, plan, fabric_for("cpu"))
    objective = supervised(learner.model)
    data = tiny.images(count)
    train(learner, objective, data, plan, seed=seed, on_epoch=records.append, on_step=lambda *step: steps.append(step))
    return model, records, steps


def by_hand(plan: Training, count: int = 40, seed: int = 5) -> tuple[nn.Module, list[float]]:
    model, losses = Small().to(memory_format=torch.channels_last), []
    kind = torch.optim.Adam if plan.optimizer is Optimizer.ADAM else torch.optim.SGD
    settings = {} if plan.optimizer is Optimizer.ADAM else {"momentum": plan.momentum}
    optimizer = kind(model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, **settings)
    data, number = tiny.images(count), 0
    steps = -(-count // plan.batch_size)
    for epoch in range(plan.epochs):
        losses.append(0.0)
        for batch in train_batches(data, plan.batch_size, plan.augment, seed=seed, epoch=epoch):
            optimizer.param_groups[0]["lr"] = learning_rate(plan, number, steps)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch.images), batch.labels)
            loss.backward()
            optimizer.step()
            losses[-1] += loss.item() / steps
            number += 1
    return model, losses


def weights(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize("plan", [tiny.SGD, tiny.ADAM])
def test_the_loop_is_the_plain_one(plan):
    model, records, steps = fitted(plan)
    expected, losses = by_hand(plan)
    assert equal(model, expected)
    assert [record.loss for record in records] == pytest.approx(losses, rel=1e-5)
    assert [record.epoch for record in records] == [1, 2, 3]
    assert [record.lr for record in records] == pytest.approx([plan.lr, plan.lr, plan.lr * 0.1])
    assert [number for number, _ in steps] == [1, 2, 3] * 3


def test_records_hold_the_means_of_the_parts():
    _, records, _ = fitted(tiny.SGD)
    for record in records:
        assert set(record.parts) == {"cross_entropy", "accuracy"}
        assert record.parts["cross_entropy"] == record.loss
        assert record.seconds > 0
        assert record.measured == {}


def test_the_loss_is_told_now_and_then():
    _, _, steps = fitted(replace(tiny.SGD, batch_size=1, epochs=1), count=120)
    assert [number for number, loss in steps if loss == loss] == [1, 51, 101]


def test_the_seed_decides_and_nothing_else_does():
    one, other, different = fitted(tiny.SGD)[0], fitted(tiny.SGD)[0], fitted(tiny.SGD, seed=6)[0]
    torch.rand(7)
    assert equal(one, other)
    assert not equal(one, different)


def test_thirty_two_images_are_learned_by_heart():
    data = tiny.images(32, classes=2)
    data = replace(data, labels=torch.randint(0, 2, (32,)))  # nothing to be learned but by heart
    plan = Training(Optimizer.ADAM, 0.01, 150, batch_size=16, schedule=Schedule.TRIANGLE, milestones=(0.3,))
    learner, records = set_up(Small(), plan, fabric_for("cpu")), []
    train(learner, supervised(learner.model), data, plan, seed=0, on_epoch=records.append)
    assert records[0].parts["accuracy"] < 0.9
    assert records[-1].parts["accuracy"] == 1.0
    assert records[-1].loss < 0.05


def test_training_starts_in_training_mode_and_after_the_epochs_done():
    plan, seen = replace(tiny.SGD, epochs=4), []
    model = Small()
    learner = set_up(model, plan, fabric_for("cpu"))

    def on_epoch(record) -> None:
        seen.append((record.epoch, model.training))
        model.eval()  # as an evaluation might leave it

    train(learner, supervised(learner.model), tiny.images(), plan, seed=0, epochs_done=2, on_epoch=on_epoch)
    assert seen == [(3, True), (4, True)]
    train(learner, supervised(learner.model), tiny.images(), plan, seed=0, epochs_done=4, on_epoch=on_epoch)
    assert len(seen) == 2


def test_the_first_epochs_have_small_images():
    plan, sides = replace(tiny.SGD, epochs=3, sides=(4, 6)), []
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    learner = set_up(model, plan, fabric_for("cpu"))

    def objective(batch: Batch) -> StepLoss:
        sides.append(batch.images.shape[-1])
        return supervised(learner.model)(batch)

    train(learner, objective, tiny.images(), plan, seed=0, on_epoch=lambda record: None)
    steps = steps_per_epoch(tiny.images(), plan)
    assert sides == [4] * steps + [6] * steps + [8] * steps


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_training_stops_at_the_end_of_its_epoch(bad):
    learner, records = set_up(Small(), tiny.SGD, fabric_for("cpu")), []

    def objective(batch: Batch) -> StepLoss:
        loss = learner.model(batch.images).sum() * bad
        return StepLoss(loss, {})

    with pytest.raises(TrainingError, match=r"diverged: the mean loss of epoch 1 is (nan|inf|-inf)\. Lower lr \(now 0.05\)"):
        train(learner, objective, tiny.images(), tiny.SGD, seed=0, on_epoch=records.append)
    assert records == []


def test_the_last_batch_counts_as_a_step():
    assert [steps_per_epoch(tiny.images(n), replace(tiny.SGD, batch_size=16)) for n in (15, 16, 17)] == [1, 1, 2]


def test_a_batch_must_divide_among_processes():
    with pytest.raises(InputError, match="batch of 16 does not divide among 3 processes"):
        set_up(Small(), tiny.SGD, SimpleNamespace(world_size=3))


@pytest.mark.parametrize(("count", "processes"), [(8, 2), (7, 2), (1, 2), (2, 4), (5, 3)])
def test_the_parts_of_a_batch_are_equally_large_and_hold_everything(count, processes):
    index = torch.arange(count)
    batch = Batch(torch.rand(count, 3, 2, 2), index % 2, index, torch.zeros_like(index))
    parts = [_share_of(batch, SimpleNamespace(world_size=processes, global_rank=rank)) for rank in range(processes)]
    assert len({len(part.labels) for part in parts}) == 1
    assert len(parts[0].labels) == -(-count // processes)
    drawn = torch.cat([part.index for part in parts])
    assert sorted(drawn.tolist()) == sorted(number % count for number in range(len(drawn)))  # the first come again
    for part in parts:
        assert torch.equal(part.images, batch.images[part.index])
        assert torch.equal(part.labels, batch.labels[part.index])


def test_a_single_process_gets_the_batch_itself():
    index = torch.arange(3)
    batch = Batch(torch.rand(3, 3, 2, 2), index, index, index)
    assert _share_of(batch, fabric_for("cpu")) is batch


@pytest.mark.parametrize("devices", [0, -1])
def test_devices_that_cannot_be_are_refused_in_one_sentence(devices):
    with pytest.raises(InputError, match=rf"cannot compute on {devices} device\(s\) of kind 'cpu'"):
        fabric_for("cpu", devices)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_accelerator_is_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"There is no device 'cuda' on this machine .*Choose cpu or auto\.") as caught:
        fabric_for("cuda")
    assert "\n" not in str(caught.value)


PARALLEL = """
import sys
from functools import partial
import torch
from torch import nn
sys.path.insert(0, {tests!r})
import tiny
from nodestill.training import supervised
from nodestill.training.loop import fabric_for, set_up, train

def fit(fabric, out):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3))
    learner = set_up(model, tiny.SGD, fabric)
    losses = []
    train(learner, supervised(learner.model), tiny.images(), tiny.SGD, seed=5, on_epoch=lambda r: losses.append(r.loss))
    torch.save((model.state_dict(), losses), f"{{out}}.{{fabric.global_rank}}")

if __name__ == "__main__":
    fabric = fabric_for("cpu", int(sys.argv[1]))
    fabric.launch(partial(fit, out=sys.argv[2])) if sys.argv[1] != "1" else fit(fabric, sys.argv[2])
"""


def test_nothing_is_said_of_the_precision():
    fabric_for("cpu")  # loads what talks
    said = logging.handlers.BufferingHandler(100)
    talkers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    for talker in talkers:
        talker.addHandler(said)
    try:
        fabric_for("cpu", precision=Precision.BFLOAT16)
    finally:
        for talker in talkers:
            talker.removeHandler(said)
    assert said.buffer == []


@pytest.mark.slow  # two interpreters that import torch
def test_two_processes_train_what_one_does(tmp_path):
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL.format(tests=str(Path(__file__).parents[1])))
    for processes in (1, 2):
        command = [sys.executable, str(script), str(processes), str(tmp_path / f"of{processes}")]
        subprocess.run(command, check=True, timeout=300, capture_output=True)
    (single, losses), *shared = (torch.load(tmp_path / name) for name in ("of1.0", "of2.0", "of2.1"))
    for name, value in single.items():
        assert torch.equal(shared[0][0][name], shared[1][0][name])  # gradients were synchronised
        torch.testing.assert_close(value, shared[0][0][name], rtol=1e-4, atol=1e-6)
    both = [(a + b) / 2 for a, b in zip(shared[0][1], shared[1][1])]  # each reports the mean over its own images
    assert both == pytest.approx(losses, rel=1e-4)
    assert shared[0][1] != shared[1][1]  # different images
    assert not torch.equal(single["0.weight"], Small().net[0].weight)


def test_augmentation_reaches_the_model():
    seen = []
    plan = replace(tiny.SGD, augment=Augment(cutout=8), epochs=1)
    learner = set_up(Small(), plan, fabric_for("cpu"))

    def objective(batch: Batch) -> StepLoss:
        seen.append(float((batch.images == 0).float().mean()))
        return supervised(learner.model)(batch)

    train(learner, objective, tiny.images(), plan, seed=0, on_epoch=lambda record: None)
    assert min(seen) > 0.2
