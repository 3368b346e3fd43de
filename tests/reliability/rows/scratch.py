"""What calls take beside their data, and what becomes of it when memory runs out: every request is seen."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fastconv
from fastconv.bench.cases import Case
from fastconv.bench.layer_sets import SETS
from reliability.allocator import BEHIND, failing, guarded, live_blocks, note, peak, with_allocator
from reliability.board import Outcome, row
from reliability.workload import Array, Work, difference, works

MOST_SCRATCH, SHARE = 32 << 20, 0.1  # the contract: the larger of both
# What workspace_bytes may leave out, or round up: tables of taps and flags, padded biases.
SLACK, TIGHT = 64 << 10, 1.1
PATHOLOGICAL = (
    Case("", "65x65 kernel", "", 8, 16, 160, 65, padding=32),
    Case("", "65x65 kernel, valid", "", 64, 8, 100, 65),
    Case("", "65x65 depthwise", "", 32, 32, 128, 65, padding=32, groups=32),
    Case("", "25x25 kernel", "", 16, 16, 284, 25, padding=12),
    Case("", "13x13 kernel, 512 channels", "", 512, 32, 27, 13, padding=6),
    Case("", "dilated by 64", "", 64, 64, 256, 3, padding=64, dilation=64),
    Case("", "dilated by 31", "", 96, 64, 96, 3, padding=31, dilation=31),
    Case("", "4096 channels", "", 4096, 4096, 7, 1),
    Case("", "2048 channels 3x3", "", 2048, 64, 14, 3, padding=1),
    Case("", "one output", "", 512, 1024, 7, 7),
    Case("", "one channel of a large plane", "", 1, 1, 2000, 3, padding=1),
    Case("", "stride 16", "", 3, 768, 224, 16, stride=16),
    Case("", "stride above the kernel", "", 32, 32, 512, 3, stride=9),
    Case("", "large batch", "", 32, 32, 16, 3, padding=1, batch=256),
    Case("", "transposed, stride 8", "", 64, 32, 32, 16, stride=8, padding=4, transposed=True),
    Case("", "many groups", "", 512, 1024, 28, 3, padding=1, groups=64),
)
THREADS = (1, 2, 4, 16, 64)


@dataclass(frozen=True)
class Layer:
    """A layer with the threads that its calls may use."""

    case: Case
    threads: int
    channels_last: bool

    def __str__(self) -> str:
        c = self.case
        last = ", channels last" if self.channels_last else ""
        return (
            f"{c.name}{last}: input {c.input_shape}, weight {c.weight_shape}, stride {c.stride}, padding {c.padding}, "
            f"dilation {c.dilation}, groups {c.groups}, {c.dtype}, {self.threads} threads"
        )


def layers(count: int) -> list[Layer]:
    """The layers of the benchmark at the sizes that images of 224, 256 and 320 pixels have there; pathological ones."""
    real = [
        replace(case, size=max(1, case.size * pixels // 224), batch=1 + case.batch // 8)
        for pixels in (224, 256, 320)
        for cases in SETS.values()
        for case in cases
        if isinstance(case.size, int) and case.axes == 2
    ]
    chosen = [*PATHOLOGICAL, *real[:: max(1, len(real) // count)]][:count]
    return [
        Layer(case, THREADS[number % len(THREADS)], number % 2 == 1 and not case.transposed)
        for number, case in enumerate(chosen)
    ]


@row(
    "scratch memory beside data and packed weights, real layers and pathological ones (65x65 kernel)",
    "200 layers, at most max(32 MiB, 10 %) and, within 10 %, as workspace_bytes says",
    quick=24, full=216, order=170,
)  # fmt: skip
@with_allocator
def scratch(count: int) -> Outcome:
    """Every request for scratch and for NumPy's arrays during a call is counted; what it returns is not scratch."""
    outcome = Outcome()
    worst = loosest = 0.0
    for layer in layers(count):
        note(str(layer))
        with guarded(BEHIND):
            faults = []
            for what, used, allowed, said in _measured(layer):
                worst = max(worst, used / allowed)
                if used > allowed:
                    faults.append(f"{what} takes {used:,} bytes of scratch, {allowed:,} allowed")
                if said is None:
                    continue
                loosest = max(loosest, (said - SLACK) / max(1, used))
                if used > TIGHT * said + SLACK or said > TIGHT * used + SLACK:
                    faults.append(f"{what} takes {used:,} bytes of scratch, workspace_bytes says {said:,}")
        outcome.check(not faults, f"{layer}: {'; '.join(faults)}")
    outcome.measured = f"{worst:.0%} of what is allowed; workspace_bytes says up to {loosest:.1f} x what is used"
    return outcome


def _measured(layer: Layer) -> Iterator[tuple[str, int, int, int | None]]:
    """What was done, the scratch that it took, as much as it may take, and as much as was said."""
    case, limit = layer.case, {"num_threads": layer.threads}
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.input_shape, np.float32).astype(case.dtype)
    w = rng.standard_normal(case.weight_shape, np.float32).astype(case.dtype)
    b = np.zeros(case.out_channels, case.dtype)
    y = np.zeros(case.output_shape, case.dtype)
    data = x.nbytes + w.nbytes + y.nbytes
    options: dict[str, Any] = {
        "stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups
    }  # fmt: skip
    if layer.channels_last:
        x, y = (np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (x, y))
        w = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
        options["data_format"] = "NHWC"

    def used(call: Callable[[], Any]) -> int:
        """Scratch at the peak; NumPy frees nothing of the results in between."""
        with peak() as most:
            result = call()
        kept = result if isinstance(result, tuple) else (result,)
        return most[0] - sum(array.nbytes for array in kept if array is not None and array is not y)

    def allowed(packed: int = 0) -> int:
        return max(MOST_SCRATCH, int(SHARE * (data + packed)))

    if case.transposed:
        call = used(lambda: fastconv.conv_transpose2d(x, w, b, **options, **limit, out=y))
        yield "conv_transpose2d", call - _packed(w), allowed(_packed(w)), None
        grads = fastconv.grad
        yield "its input gradient", used(
            lambda: grads.conv_transpose2d_input(x.shape, w, y, **options, **limit)
        ) - _packed(w), allowed(_packed(w)), None
        yield "its weight gradient", used(
            lambda: grads.conv_transpose2d_weight(x, w.shape, y, **options, **limit)
        ), allowed(), None
        return
    plan = fastconv.plan_conv2d(x.shape, w, b, **options, **limit)
    yield "ConvPlan.run", used(lambda: plan.run(x, out=y)), allowed(), plan.workspace_bytes
    said = fastconv.explain_conv2d(x.shape, w.shape, dtype=case.dtype, **options, **limit)
    call = used(lambda: fastconv.conv2d(x, w, b, **options, **limit, out=y))
    packed = said.packed_weight_bytes
    yield "conv2d", call - packed, allowed(packed), said.workspace_bytes
    gradients = used(lambda: fastconv.conv2d_backward(y, x, w, **options, **limit))
    yield "conv2d_backward", gradients - _packed(w), allowed(_packed(w)), None


def _packed(weight: Array) -> int:
    """Bytes of packed weights of a gradient call, which it may keep for its run: the weights in whole vectors."""
    return weight.nbytes


@row(
    "the n-th allocation fails, for each n",
    "50 configurations: MemoryError, no leak, next call right",
    quick=4, full=50, order=220,
)  # fmt: skip
@with_allocator
def allocation_failure(count: int) -> Outcome:
    """Scratch memory and the arrays that NumPy makes; each failure is followed by a call that must succeed."""
    outcome = Outcome()
    failures = 0
    for work in works(count, first=7):
        note(f"an allocation fails: {work}")
        expected = work.results()
        number, wrong, done = 0, "", False
        gc.collect()
        gc.freeze()  # what was there before a failure need not be walked after each
        before = live_blocks()
        while not wrong and not done:
            number += 1
            done, wrong = _with_failure(number, work, expected)
            gc.collect()
            if live_blocks() > before:
                wrong = wrong or f"{live_blocks() - before} blocks were left behind after request {number} failed"
        gc.unfreeze()
        failures += number - 1
        outcome.check(not wrong, f"{wrong}: {work}")
    outcome.measured = f"{failures:,} failed allocations"
    return outcome


def _with_failure(number: int, work: Work, expected: list[Array]) -> tuple[bool, str]:
    """Whether there was no request of this number any more, and what was wrong in this call or in the next."""
    with guarded(BEHIND), failing(number):
        try:
            return True, difference(work.results(), expected)
        except MemoryError:
            pass
        except Exception as error:
            return False, f"request {number} failed, and it raised {type(error).__name__}: {error}"
    with guarded(BEHIND):
        return False, difference(work.results(), expected)
