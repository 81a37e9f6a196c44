"""Write docs/evidence.md and the table of speeds in README.md from the rows in benchmarks/results. Measures nothing.

python benchmarks/evidence.py
"""

from pathlib import Path

import full_size
import gradient_quality
import independence
import kinks
import solve_speed
import step_control
import work_precision
from rows import read
from targets import short_table, targets_table

PAGE = Path(__file__).parent.parent / "docs" / "evidence.md"
README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- made by `python benchmarks/evidence.py` -->", "<!-- /evidence -->"
_KEPT = (1e-3,)


def page() -> str:
    """Return the page: fixed words around tables made from rows."""
    speed = read(solve_speed.RESULTS)
    quality = [row for row in read(gradient_quality.RESULTS) if row["tolerance"] in _KEPT]
    machines = dict.fromkeys(row["machine"] for row in speed)
    return TEMPLATE.format(
        machines=" and ".join(machines),
        torch=speed[0]["environment"]["torch"],
        targets=targets_table(speed),
        speed=solve_speed.table(speed),
        kinks=kinks.table(read(kinks.RESULTS)),
        work=work_precision.table(read(work_precision.RESULTS)),
        independence=independence.table(read(independence.RESULTS)),
        quality=gradient_quality.table(quality),
        control=step_control.table(read(step_control.RESULTS)),
        evaluations=kinks.EVALUATIONS,
        seeds=kinks.SEEDS,
        full=full_size.table(read(full_size.RESULTS)),
    )


TEMPLATE = """# What was measured of the solver

Every table on this page is made from the rows in `benchmarks/results` by `python benchmarks/evidence.py`; the scripts say how
they measure. Losing cases are in. Machines: {machines}; PyTorch
{torch}. A table of speeds names its own.

## Speed

`python benchmarks/solve_speed.py` with `--channels`, `--horizon`, `--norm`. f is four 3×3 convolutions on C × 8 × 8 with
random weights, batch 128, one thread, everything interleaved in one process. Speeds are relative to torchdiffeq's dopri5 at
10⁻³ with backpropagation and f as it is usually written. bosh3, even3 and even4 run at 10⁻³ to 6·10⁻³: what has to be equal
is the error of the result; "compiled" is `Solver(compiled=True)`. At horizon 100 the last layer of f is small, without a norm
smaller still, or y overflows. Not measured: a GPU.
All tables are of November 23 and 24. Those of the AMD EPYC are older than compiled derivatives of f, and those of them without
even3 and even4 older than these methods, and than a `calibrated` that, of the first steps that cost the same, takes the one
that errs least. The Intel Xeon has tiles for bfloat16: its convolutions took a quarter to a third of the time, and what lies
between them weighs more.
The aims, and what was reached. {targets}

All rows; behind a speed, what it would be by the slowest and by the quickest round. Errors are relative to a float64
reference; "over bare" is the time over that of the bare convolutions of as many evaluations; megabytes are the growth of the
process in a training step.

{speed}

## Kinks

`python benchmarks/kinks.py`. Where f has ReLUs, its slope along a solution has kinks, and a step errs by them, whatever its
order. "Kernel": what a kink costs a step of size 1, root mean square over where it lies; "least": what it would cost with the
best nodes of as many stages and that order. Steps of more stages are longer, so stages² × kernel compares methods at equal
evaluations. "Seen": the estimate over the error. even3 and even4 are ours. Errors are those of {evaluations} evaluations in
equal steps, f as above with C = 64, mean of {seeds} seeds.

{kinks}

With ReLUs the errors follow the column before "Seen", whatever the order; with softplus they follow the order.

## Work and precision

`python benchmarks/work_precision.py --data DIR`. Evaluations of f that an error of 10⁻³ / 10⁻⁶ at the end takes
("≤": already reached at the loosest tolerance, "–": not reached).

![Error against evaluations, six problems](images/work-precision.png)

{work}

Where elements of a batch differ (Lotka-Volterra, two bodies) steps per image win. A tolerance per element can cost more than
one for the whole batch: Lotka-Volterra at 10⁻⁶. On the trained f, which has kinks, orders 3 and 4 reach 10⁻⁶
and order 5 does not; on smooth problems even4 pays for its kinks.

## Step control

`python benchmarks/step_control.py --data DIR`. The next step by the last error alone ("plain", what `solve` does), or by the
one before too (PI, exponents 0.7 and 0.4), at 10⁻³, each image by itself, on random weights (64 channels, GroupNorm) and on the
trained students of the [reproduction](reproduce-cifar10-cpu.md). PI is the more careful at one tolerance, so the last two
columns have its evaluations at a looser one, where its error is plain control's. There neither is clearly ahead; plain
control is the simpler, and has nothing to remember.

{control}

## Independence of the batch

`python benchmarks/independence.py --horizon H --data DIR`, trained NODE(H) at 10⁻³, in PyTorch float32 unless said. Changes are
relative to an image's own logits or gradient, the worst image counts; "above 1e-5" are the images whose gradient changes by
more. Ours, per image, in float32: steps are the same, so a gradient changes by rounding alone, and rounding at another batch
size can put a ReLU on the other side of zero. That is the likely cause of the few above 1e-5; the same weights with softplus in
place of the ReLUs have none. torchode's step sizes, on no grid, move with the rounding. In bfloat16 all change by rounding.

{independence}

## Gradients

`python benchmarks/gradient_quality.py --weights random|trained --horizon H --data DIR`. Two truths: the gradient of the exact
solution (a float64 adjoint whose doubt is in the rows), and that of the very steps that were taken ("own"). With ReLU the two
part, because the derivative of f jumps: the gradient of the steps converges slowly to the other, whoever computes it. With
softplus they are one. "Rounding" is what bfloat16 changes in y(t1) along the same steps, in units of the tolerance. Tolerance
10⁻³; the rows hold 10⁻⁵ as well.

{quality}

## Full size, without a GPU

`python benchmarks/full_size.py --data DIR`. Some training steps of the paper's models at their size, float32 and dopri5 at
10⁻³, and what they come to on this machine: the reason why the tables are at scale `cpu`. "cifar10-gpu" and "svhn-fast" are
recipes of ours. PFLOP and days are of the student alone, by evaluations of fresh weights.

{full}
"""


def with_speeds(readme: str) -> str:
    """Return the text of README.md with the table of speeds as the rows have it."""
    before, rest = readme.split(START)
    return f"{before}{START}\n\n{short_table(read(solve_speed.RESULTS))}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page())
    README.write_text(with_speeds(README.read_text()))
