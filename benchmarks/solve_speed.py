"""How fast is a solve, forward and with gradients, at which error, with how much memory?

    python benchmarks/solve_speed.py --channels 64 --horizon 1 --norm none

f is four 3x3 convolutions on C x 8 x 8, batch 128, random weights. All contenders run interleaved in one process; times are
medians over the rounds, with the smallest and the largest. "Speed" is the median of torchdiffeq's dopri5 with f written as
usual (time concatenated, PyTorch's own layers) over that of the contender. Errors are relative, on the first images alone:
of the gradients against a float64 adjoint at a tight tolerance, of the state against a float64 solve at 1e-7; the doubt is
that reference's difference from one at ten times its tolerance. Memory is the growth of the process at its highest
during one training step. "Over bare" is the time over that of the bare convolutions of as many evaluations, batch by batch.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from contenders import AsUsual, Chosen, Contender, our_contenders, ours, rivals
from memory import peak_megabytes
from nodestill.experiments.environment import environment
from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.ode import GradientMode, Method, Solver
from rows import keep, markdown, read, run_script

RESULTS = Path(__file__).parent / "results" / "solve_speed.jsonl"
SETTINGS = ("channels", "horizon", "norm", "batch", "threads", "machine")
_METHODS = (Chosen(Method.BOSH3, 2e-3), Chosen(Method.EVEN3, 4e-3), Chosen(Method.EVEN4, 4e-3))
_BARE_CALLS, _MANY = 13, 100_000
_OF_STATE = 1e-7  # tolerance of the state's reference; an adjoint there would take hours


def workload(channels: int, horizon: float, norm: Norm, batch: int) -> tuple[ConvDynamics, Tensor, Tensor]:
    """Return f, y0 and the weights of the loss: random, from one seed.

    A long horizon needs a small f, or y overflows; without a norm smaller still, or the reference does not arrive.
    """
    torch.manual_seed(0)
    f = ConvDynamics(channels, norm=norm, activation=Activation.RELU, t1=horizon)
    with torch.no_grad():
        last = f.norms[-1] if norm is Norm.GROUP else f.convs[-1]
        scale = horizon ** (-0.5 if norm is Norm.GROUP else -0.75)
        last.weight.mul_(scale)
        if norm is Norm.NONE:
            f.time_kernels[-1].mul_(scale)
    y0, weights = (torch.randn(batch, channels, 8, 8).contiguous(memory_format=torch.channels_last) for _ in range(2))
    return f, y0, weights


def gradients(contender: Contender, f: ConvDynamics, y0: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the end state and the gradients of its weighted sum with respect to y0 and to the parameters."""
    y0 = y0.detach().requires_grad_()
    y1 = contender(f, y0)
    return y1.detach(), list(torch.autograd.grad((y1 * weights).sum(), [y0, *f.parameters()]))


def reference(f: ConvDynamics, y0: Tensor, weights: Tensor, tolerance: float) -> tuple[Tensor, list[Tensor], list[float]]:
    """Return the float64 state and gradients, and the doubts of the state and of the gradients with respect to y0.

    The adjoint alone will do for gradients: those of a discretisation converge slowly where f has kinks.
    """
    twin = ConvDynamics(y0.shape[1], norm=f.norm, activation=f.activation, t1=f.t1).double()
    twin.load_state_dict(f.state_dict())
    begin, of_end = y0.double(), weights.double()
    (_, tight), (_, loose) = (
        gradients(ours(Solver(rtol=tol, atol=tol, gradient=GradientMode.ADJOINT, max_steps=_MANY)), twin, begin, of_end)
        for tol in (tolerance, 10 * tolerance)
    )
    with torch.no_grad():
        rough, state = (ours(Solver(rtol=tol, atol=tol, max_steps=_MANY))(twin, begin) for tol in (10 * _OF_STATE, _OF_STATE))
    return state, tight, [relative([rough], [state]), relative(loose[:1], tight[:1])]


def relative(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the norm of the difference over the norm, all tensors taken together."""
    error = sum(float((a.double() - b).square().sum()) for a, b in zip(found, expected, strict=True))
    return (error / sum(float(b.square().sum()) for b in expected)) ** 0.5


def calls_of(contender: Contender, f: ConvDynamics, y0: Tensor) -> int:
    """Return how often a contender calls f for one forward solve."""
    return len(batches_of(contender, f, y0))


def batches_of(contender: Contender, f: ConvDynamics, y0: Tensor) -> list[int]:
    """Return the batch sizes of a contender's calls of f in one forward solve; what is compiled runs uncompiled here."""
    found: list[int] = []

    def hook(module: nn.Module, arguments: tuple) -> None:
        if isinstance(module, ConvDynamics | AsUsual):
            found.append(len(arguments[1]))

    handle = register_module_forward_pre_hook(hook)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        contender(f, y0)
    handle.remove()
    return found


def bare_convolutions(f: ConvDynamics, precision: torch.dtype) -> Contender:
    """Return the convolutions of some evaluations of f and nothing else."""

    def run(f: ConvDynamics, y0: Tensor) -> Tensor:
        with torch.autocast(y0.device.type, torch.bfloat16, enabled=precision is torch.bfloat16):
            total = 0.0
            for _ in range(_BARE_CALLS):
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


def training_step(contender: Contender, f: ConvDynamics, y0: Tensor, weights: Tensor) -> None:
    """Compute the gradients that training needs: with respect to the state and to the parameters."""
    y0 = y0.detach().requires_grad_()
    torch.autograd.grad((contender(f, y0) * weights).sum(), [y0, *f.parameters()], allow_unused=True)


def qualities(
    contenders: dict[str, Contender], f: ConvDynamics, y0: Tensor, weights: Tensor, options: argparse.Namespace
) -> dict:
    """Return calls, errors and memory of each contender, by name; a replay's errors are those of the solve it repeats."""
    few, few_weights = y0[: options.images].clone(), weights[: options.images].clone()
    state, exact, doubt = reference(f, few, few_weights, options.reference)
    rows = {}
    for name, contender in contenders.items():
        training_step(contender, f, y0, weights)  # what is compiled or cached at first use is not the solve's memory
        batches = batches_of(contender, f, y0)
        rows[name] = {"calls": len(batches), "calls_per_image": sum(batches) / len(y0), "doubt": doubt}
        rows[name]["megabytes"] = peak_megabytes(lambda c=contender: training_step(c, f, y0, weights))
        if "replayed" not in name:
            y1, found = gradients(contender, f, few, few_weights)
            rows[name]["state_error"] = relative([y1], [state])
            rows[name]["input_gradient_error"] = relative(found[:1], exact[:1])
            rows[name]["weight_gradient_error"] = relative(found[1:], exact[1:])
        print(f"{name:<50} {rows[name]}", flush=True)
    return rows


def measure(options: argparse.Namespace) -> list[dict]:
    """Run all contenders of a workload, interleaved, and return their rows."""
    f, y0, weights = workload(options.channels, options.horizon, Norm(options.norm), options.batch)
    contenders = rivals(f, few=options.few) | our_contenders(f, y0, options.methods, few=options.few)
    rows = qualities(contenders, f, y0, weights, options)
    for precision in (torch.float32, torch.bfloat16):
        name = f"bare convolutions, {str(precision)[6:]}"
        contenders[name], rows[name] = bare_convolutions(f, precision), {"calls": _BARE_CALLS, "calls_per_image": _BARE_CALLS}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    with torch.no_grad():  # `qualities` has made training steps, and no forward pass alone
        for contender in contenders.values():
            contender(f, y0)
    started = time.perf_counter()
    for done in range(options.rounds):
        if done >= 3 and time.perf_counter() - started > 60 * options.minutes:
            break
        for name, contender in contenders.items():
            if "adjoint" in name and done >= 2:
                continue  # many times as long as all the others
            with torch.no_grad():
                forward = seconds(lambda c=contender: c(f, y0))
            training = seconds(lambda c=contender: training_step(c, f, y0, weights))
            times[name].append((forward, training))
    return [_row(name, rows, times, options) for name in contenders]


def _row(name: str, rows: dict[str, dict], times: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> dict:
    row: dict = {"contender": name, **rows[name], "rounds": len(times[name])}
    bare = f"bare convolutions, {'bfloat16' if 'bfloat16' in name or 'autocast' in name else 'float32'}"
    for i, part in enumerate(("forward", "training")):
        own, rival, floor = ([t[i] for t in times[who]] for who in (name, "torchdiffeq", bare))
        row |= {f"{part}_seconds": statistics.median(own), f"{part}_range": [min(own), max(own)]}
        row[f"{part}_speed"] = statistics.median(rival) / statistics.median(own)
        calls = row["calls_per_image"]
        row[f"{part}_over_bare"] = statistics.median(own) * _BARE_CALLS / calls / statistics.median(floor) if calls else None
    surroundings = environment(torch.device("cpu"))
    settings = {k: getattr(options, k) for k in SETTINGS[:-1]} | {"machine": surroundings["device"]}
    return settings | row | {"environment": surroundings}


def short_name(machine: str) -> str:
    """Return what a processor is called, as Intel Xeon."""
    return machine.partition(",")[0].replace("(R)", "").removesuffix(" Processor")


COLUMNS = {
    "calls": "d",
    "forward_speed": ".2f",
    "training_speed": ".2f",
    "forward_over_bare": ".2f",
    "training_over_bare": ".2f",
    "megabytes": ".0f",
    "state_error": ".1e",
    "input_gradient_error": ".1e",
    "weight_gradient_error": ".1e",
}


def table(rows: list[dict]) -> str:
    """Return a table of each workload that there are rows of."""
    parts = []
    for key in dict.fromkeys(tuple(row[k] for k in SETTINGS) for row in rows):
        some = [row for row in rows if tuple(row[k] for k in SETTINGS) == key]
        lines = [["Contender", *(name.replace("_", " ") for name in COLUMNS)], ["---", *["---:"] * len(COLUMNS)]]
        for row in some:
            lines.append([row["contender"], *[_cell(row, some[0], name, how) for name, how in COLUMNS.items()]])
        channels, horizon, norm, batch, threads, machine = key
        title = f"C = {channels}, horizon {horizon:g}, norm {norm}, batch {batch}, {threads} thread(s)"
        title += f", {short_name(machine)}"
        about = f"{min(row['rounds'] for row in some)} rounds or more; doubt of the reference: "
        about += "state {:.1e}, gradients {:.1e}".format(*some[0]["doubt"])
        parts.append(f"**{title}**, {about}\n\n{markdown(lines)}")
    return "\n\n".join(parts)


def _cell(row: dict, rival: dict, name: str, how: str) -> str:
    """Return a figure of a row; a speed with what the slowest and the quickest round would make of it."""
    if not row.get(name):
        return "–"
    if not name.endswith("_speed"):
        return format(row[name], how)
    part = name.removesuffix("_speed")
    quickest, slowest = row[f"{part}_range"]
    low, high = (rival[f"{part}_seconds"] / found for found in (slowest, quickest))
    return f"{row[name]:{how}} ({low:.2f}–{high:.2f})"


def main() -> None:
    """Parse, measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--horizon", type=float, default=1.0)
    parser.add_argument("--norm", choices=[norm.value for norm in Norm], default="none")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=5.0, help="no new round after so long, but three at least")
    parser.add_argument("--few", action="store_true", help="leave the minor contenders out")
    parser.add_argument("--methods", type=Chosen.read, nargs="+", default=_METHODS, help="as in even4:4e-3, besides dopri5")
    parser.add_argument("--images", type=int, default=8, help="images that errors are measured on")
    parser.add_argument("--reference", type=float, default=1e-6, help="tolerance of the gradients' float64 reference")
    parser.add_argument("--table", action="store_true", help="only print the table of what was measured before")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = read(options.out) if options.table else keep(measure(options), options.out, SETTINGS)
    print(table(rows))


if __name__ == "__main__":
    run_script(main)
