"""How fast is a solve, forward and with gradients, at which error, with how much memory?

    python benchmarks/solve_speed.py --channels 64 --horizon 1 --norm none --repeats 7

All contenders run interleaved in one process on the same f and the same images; times are medians over the repeats, with the
smallest and the largest; "speed" is the median of torchdiffeq with f written as usual (time concatenated, PyTorch's own layers)
over the contender's. Rivals run with that f and with ours. Errors are relative, measured on the first 16
images alone against a float64 solve that was itself compared with one at a tighter tolerance. Memory is the
growth of the process. A row is appended to benchmarks/results/solve_speed.jsonl for each contender.
"""

import argparse
import gc
import json
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from contenders import AsUsual, Contender, our_contenders, rivals, torchdiffeq_direct
from nodestill.experiments.environment import environment
from nodestill.models import Activation, ConvDynamics, Norm

RESULTS = Path(__file__).parent / "results" / "solve_speed.jsonl"
_ERROR_IMAGES = 16


def workload(channels: int, horizon: float, norm: Norm, batch: int) -> tuple[ConvDynamics, Tensor, Tensor]:
    """Return f, y0 and the weights of the loss: random, from one seed."""
    torch.manual_seed(0)
    f = ConvDynamics(channels, norm=norm, activation=Activation.RELU, t1=horizon)
    if horizon > 1:  # a solve over a long horizon needs a small f, or the state overflows
        with torch.no_grad():
            last = f.norms[-1] if norm is Norm.GROUP else f.convs[-1]
            last.weight.mul_(1 / horizon)
            last.bias.zero_()
    y0, weights = (torch.randn(batch, channels, 8, 8).contiguous(memory_format=torch.channels_last) for _ in range(2))
    return f, y0, weights


def gradients(contender: Contender, f: ConvDynamics, y0: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the end state and the gradients of its weighted sum with respect to y0 and to the parameters."""
    y0 = y0.detach().requires_grad_()
    y1 = contender(f, y0)
    return y1.detach(), list(torch.autograd.grad((y1 * weights).sum(), [y0, *f.parameters()]))


def reference(f: ConvDynamics, y0: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor], float]:
    """Return the float64 state and gradients, and how far they are from those at a hundred times looser tolerance."""
    twin = ConvDynamics(y0.shape[1], norm=f.norm, activation=f.activation, t1=f.t1).double()
    twin.load_state_dict(f.state_dict())
    tight, loose = (
        gradients(lambda g, y, tol=tol: torchdiffeq_direct(g, y, tol), twin, y0.double(), weights.double())
        for tol in (1e-8, 1e-6)
    )
    return *tight, relative([loose[0], *loose[1]], [tight[0], *tight[1]])


def relative(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the norm of the difference over the norm, all tensors taken together."""
    error = sum(float((a.double() - b).square().sum()) for a, b in zip(found, expected, strict=True))
    return (error / sum(float(b.square().sum()) for b in expected)) ** 0.5


def peak_megabytes(work: Callable[[], object]) -> float:
    """Return by how much a call raises the process's memory at its highest, sampled every millisecond; Linux only."""
    page, highest, done = resource.getpagesize() / 2**20, 0, threading.Event()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, resident())

    gc.collect()
    before, watcher = resident(), threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return (highest - before) * page


def calls_of(contender: Contender, f: ConvDynamics, y0: Tensor) -> int:
    """Return how often a contender calls f for one forward solve."""
    count = 0

    def hook(module: nn.Module, _: object) -> None:
        nonlocal count
        count += isinstance(module, ConvDynamics | AsUsual)

    handle = register_module_forward_pre_hook(hook)
    with torch.no_grad():
        contender(f, y0)
    handle.remove()
    return count


def bare_convolutions(f: ConvDynamics, calls: int, precision: torch.dtype) -> Contender:
    """Return the convolutions of `calls` evaluations of f and nothing else."""

    def run(f: ConvDynamics, y0: Tensor) -> Tensor:
        with torch.autocast(y0.device.type, torch.bfloat16, enabled=precision is torch.bfloat16):
            total = 0.0
            for _ in range(calls):
                x = y0
                for conv in f.convs:
                    x = conv(x)
                total = total + x
        return total.float()

    return run


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(options: argparse.Namespace) -> list[dict]:
    """Run all contenders of a workload, interleaved, and return their rows."""
    norm = Norm(options.norm)
    f, y0, weights = workload(options.channels, options.horizon, norm, options.batch)
    contenders = rivals(f) | our_contenders(f, y0)
    few, few_weights = y0[:_ERROR_IMAGES].clone(), weights[:_ERROR_IMAGES].clone()
    state, exact, doubt = reference(f, few, few_weights)
    rows = {}
    for name, contender in contenders.items():
        y1, found = gradients(contender, f, few, few_weights) if "replayed" not in name else (None, None)
        rows[name] = {
            "contender": name,
            "calls": calls_of(contender, f, y0),
            "state_error": None if y1 is None else relative([y1], [state]),
            "input_gradient_error": None if found is None else relative(found[:1], exact[:1]),
            "weight_gradient_error": None if found is None else relative(found[1:], exact[1:]),
            "megabytes": peak_megabytes(lambda c=contender: gradients(c, f, y0, weights)),
        }
    for precision in (torch.float32, torch.bfloat16):
        name = f"bare convolutions, 13 calls, {str(precision)[6:]}"
        contenders[name], rows[name] = bare_convolutions(f, 13, precision), {"contender": name, "calls": 13}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name, contender in contenders.items():
            with torch.no_grad():
                forward = seconds(lambda c=contender: c(f, y0))
            times[name].append((forward, seconds(lambda c=contender: training_step(c, f, y0, weights))))
    return [_row(rows[name], times[name], times["torchdiffeq"], options, doubt) for name in contenders]


def training_step(contender: Contender, f: ConvDynamics, y0: Tensor, weights: Tensor) -> None:
    """Compute the gradients that training needs: with respect to the state and to the parameters."""
    y0 = y0.detach().requires_grad_()
    torch.autograd.grad((contender(f, y0) * weights).sum(), [y0, *f.parameters()], allow_unused=True)


def _row(
    row: dict, own: list[tuple[float, float]], base: list[tuple[float, float]], options: argparse.Namespace, doubt: float
) -> dict:
    for i, part in enumerate(("forward", "training")):
        mine, rival = [t[i] for t in own], [t[i] for t in base]
        row |= {f"{part}_seconds": statistics.median(mine), f"{part}_range": [min(mine), max(mine)]}
        row[f"{part}_speed"] = statistics.median(rival) / statistics.median(mine)
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    return settings | row | {"reference_doubt": doubt, "environment": environment(torch.device("cpu"))}


def main() -> None:
    """Parse, measure, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--horizon", type=float, default=1.0)
    parser.add_argument("--norm", choices=[norm.value for norm in Norm], default="none")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(options)
    for r in rows:
        errors = [
            f"{r[k]:.1e}" if r.get(k) is not None else "      -"
            for k in ("state_error", "input_gradient_error", "weight_gradient_error")
        ]
        print(
            f"{r['contender']:<42} calls {r['calls']:>4}"
            f"  forward {r['forward_speed']:5.2f}x  training {r['training_speed']:5.2f}x"
            f"  errors {' '.join(errors)}  {r.get('megabytes', 0):6.0f} MB"
        )
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("a") as file:
        file.writelines(json.dumps(row, default=str) + "\n" for row in rows)


if __name__ == "__main__":
    main()
