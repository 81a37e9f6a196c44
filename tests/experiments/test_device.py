"""Which device a command computes on: Fabric's choice, asked only where there is one."""

import subprocess
import sys

import pytest
import torch

from nodestill.errors import InputError
from nodestill.experiments.fit import device_of
from nodestill.training.loop import fabric_for


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_the_device_is_the_one_that_fabric_chooses(accelerator):
    assert device_of(accelerator) == fabric_for(accelerator).device


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_in_our_words(accelerator, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"no device '{accelerator}' on this machine.* Choose cpu or auto") as refused:
        device_of(accelerator)
    assert "Fabric" not in str(refused.value)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_the_cpu_is_known_without_lightning(accelerator):
    asks = f"import sys; from nodestill.experiments.fit import device_of; device_of({accelerator!r}); "
    asks += "print('lightning' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
