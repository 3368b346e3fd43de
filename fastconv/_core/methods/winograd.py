"""Winograd convolution in tiles: 3 x 3 taps at stride 1 and 2, 2 x 2 taps of an input gradient, or all phases of one.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, ClassVar

from ... import _native
from ..passes import spacing
from ..problem import Use
from .estimates import CALL, MARGIN, MOVED, PACKED, PART, plain_sums, read, whole_vectors
from .method import (
    LONG_SUM,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Pass,
    Problem,
    Program,
    Triple,
    bent,
    float32_alone,
    sums_too_long,
    two_axes,
)
from .winograd_gradient import WinogradGradient
from .winograd_programs import (
    KINDS,
    LARGE,
    SMALL,
    STRIDED,
    STRIDED_LARGE,
    WinogradProgram,
    kind_of,
    tiles_of,
    tuned,
    whole,
)

# Roundings that the transforms add to those of the sum. What they may lose where operands are near the smallest
# numbers: so many of them a term, and as if each operand were so much larger. The largest tiles lose up to 850 a weight
# and 240 an input, 1,300 and 350 in the weight gradient, by the rows of their matrices; (C + 32) u times this is more
# than 9 times that.
ROUNDINGS = {LARGE: 32, SMALL: 4, STRIDED: 4, STRIDED_LARGE: 32}
LOST, ADDED = 8, 2.0**-120
MADE = 4  # what takes as long as so many multiply-adds (Zen 4): a weight transformed in a call, beside its packing
ROWS = 4  # tiles: fewer rows of a product wait for its weights
MOST_EXAMPLE_VALUES = 100_000  # channels x outputs x pixels of a generated problem, to keep it quick


class Winograd:
    """The method."""

    word, title, variants = "winograd", "Winograd", tuple(KINDS)
    halves, rounds = "", True
    former: ClassVar[dict[str, str]] = {
        "winograd_2x2": SMALL, "winograd_phases": STRIDED, "winograd_phases_4x4": STRIDED_LARGE,
    }  # fmt: skip

    # ---- whether it can

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        """A dilated pass is as many plain ones as the dilation has phases, each on every d-th pixel; padding that
        repeats pixels mixes them."""
        if variant is None:
            why = self.why_not(p, LARGE)
            return why and self.why_not(p, STRIDED) and why
        q, wanted = p.passes[0], KINDS[variant].stride
        gradient = q.step != (1, 1, 1)
        stride = (q.step if gradient else q.stride)[1:]
        if why := float32_alone(p) or self._why_not_deep(p, q, wanted):
            return why
        if wanted == 2 and p.gradient_of_weight:
            return "it has no weight gradient"
        if gradient and variant == STRIDED_LARGE and not whole(p):
            return "an input gradient of these taps has tiles of 2 x 2 outputs alone"
        if stride != (wanted, wanted):
            return f"the stride is {stride}, not {(wanted, wanted)}"
        if gradient and not whole(p) and any(one.counts[1:] != (2, 2) for one in p.passes):
            return (
                "not every phase of the kernel has 2 x 2 taps, as one of 4 x 4 has, nor is it 3 x 3 with an odd padding"
            )
        if not gradient and q.counts[1:] != (3, 3):
            return f"the kernel is {q.counts[1]} x {q.counts[2]}, not 3 x 3"
        apart = spacing(q)[1:]
        if apart != (1, 1) and (wanted == 2 or (not p.gradient_of_weight and p.geometry.padding_mode != "zeros")):
            return f"the kernel is dilated by {apart}, which it does not compute for " + (
                f"padding_mode={p.geometry.padding_mode!r}" if wanted == 1 else "a stride of 2"
            )
        if p.groups != 1:
            return f"groups is {p.groups}, not 1"
        if p.channels == 0 or p.outputs == 0:
            return "there are no channels"
        return None

    def _why_not_deep(self, p: Problem, q: Pass, wanted: int) -> str | None:
        """A volume's planes are summed as channels are: those of the kernel lie side by side."""
        flat = two_axes(p)
        if flat is None:
            return None
        if wanted == 2 or q.step != (1, 1, 1) or (p.gradient_of_weight and p.geometry.padding_mode != "zeros"):
            return flat
        if spacing(q) != (1, 1, 1):
            return f"the kernel is dilated by {spacing(q)}, which it does not compute in a volume"
        if p.input_size[0] == 1 and q.counts[0] > 1 and p.mode:
            return flat
        return None

    # ---- whether it pays

    def offer(self, p: Problem) -> Offer:
        if why := sums_too_long(p) or _direct_bfloat16(p):
            return Offer(LARGE, False, why)
        if p.use is Use.BATCH:
            if self.why_not(p, LARGE) is None:
                return self._batch(p)
            return Offer(STRIDED, False, "a training step takes it at stride 1 alone")
        return self._of_weight(p) if p.gradient_of_weight else self._plain(p)

    def _plain(self, p: Problem) -> Offer:
        """The variant that takes least."""
        direct = plain_sums(p)
        own, variant = min((cost(p, one), one) for one in KINDS if self.why_not(p, one) is None)
        if MARGIN * own > direct:
            return Offer(variant, False, (
                f"too small for Winograd: about {own:,} multiply-adds an image with its transforms for a "
                f"{p.use.value}, and {direct:,} without"
            ))  # fmt: skip
        kind, backwards = kind_of(p, variant), p.transposed and KINDS[variant].stride > 1
        tile = KINDS[variant].tile  # of a phase
        taps, kernel = (2, "4x4") if backwards and not whole(p) else (3, "3x3")
        return Offer(variant, True, (
            f"{kernel} at stride {KINDS[variant].stride}{' backwards' * backwards} in float32: {kind.elements**2} "
            f"multiplications for {tile**2} outputs{' of a phase' * backwards} instead of {(tile * taps) ** 2}"
        ), own / direct)  # fmt: skip

    def _of_weight(self, p: Problem) -> Offer:
        """Of one sum over all images and phases."""
        (channels, size, macs), t = tuned(p).gradient, tuned(p)
        apart = spacing(p.passes[0])[1:]
        own = tuple(-(-n // d) for n, d in zip(p.size[1:], apart, strict=True))
        planes = p.geometry.batch * prod(apart)
        work = 9 * p.channels * p.outputs * prod(own) * p.passes[0].counts[0] * p.size[0] * planes
        tiles = planes * -(-own[0] // 4) * -(-own[1] // 4)
        if min(p.channels, p.outputs) < channels or tiles < t.tiles_gradient or min(own) < size or work < macs:
            return Offer(LARGE, False, (
                f"too small for Winograd, which pays from {channels} channels, {size} x {size} outputs and {macs:,} "
                f"multiply-adds on for a {p.direction.value}{', a phase of the dilation' if apart != (1, 1) else ''}"
            ))  # fmt: skip
        return Offer(LARGE, True, (
            "3x3 at stride 1 in float32 with enough work: 36 multiplications for 16 outputs instead of 144"
        ))  # fmt: skip

    def _batch(self, p: Problem) -> Offer:
        """A step packs the weights once for the whole batch, so that their transform pays earlier than in a call that
        must earn it in one image."""
        t, (_, height, width) = tuned(p), p.size
        tiles = p.geometry.batch * -(-height // 4) * -(-width // 4)
        fewest = min(p.channels, p.outputs)
        pays = fewest >= t.batch_channels and tiles >= t.batch_tiles and spacing(p.passes[0]) == (1, 1, 1)
        return Offer(LARGE, pays, (
            f"3x3 at stride 1 in float32: a batch of {tiles} tiles and {fewest} channels, where it pays from "
            f"{t.batch_tiles} and {t.batch_channels} on"
        ))  # fmt: skip

    # ---- what it does

    def program(self, p: Problem, variant: str) -> Program:
        return WinogradProgram(p, variant)

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        return WinogradGradient(p, KINDS[variant])

    def grain(self, p: Problem, variant: str) -> Triple:
        """Tiles lie within a phase of the dilation and, of a gradient, of the stride."""
        g, kind = p.geometry, kind_of(p, variant)
        phases = p.transposed and not whole(p)
        steps = [d * (s if phases else 1) for d, s in zip(g.dilation, g.stride, strict=True)]
        return 1, kind.tile * steps[1], kind.tile * steps[2]

    def bound(self, p: Problem, variant: str) -> Bound:
        """|y - y_ref| <= (C + terms) u * sum over c of max|x[n, c]| * sum|w[o, c]|, C summed channels of all
        planes of the kernel (pixels for the weight gradient), u the unit roundoff, the maximum over the plane (the
        volume): a tile's error follows the largest of its pixels. Random, one-signed and constant data stayed below
        0.8 of (C + 16) u, planes of very different scales and few channels in 8 of 100,000 problems above it, up to
        1.48 times (reliability board)."""
        g = p.geometry
        planes = p.passes[0].counts[0]
        summed = min(g.batch * prod(g.output_size), LONG_SUM) if p.gradient_of_weight else p.channels * planes
        roundings = summed + ROUNDINGS[variant]
        return Bound(roundings, "plane", LOST * roundings, ADDED)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A kernel of 3 x 3, at stride 1 a dilated one now and then; an input gradient at stride 2 has 4 x 4 taps, too.
        Of a volume with the planes that it has. None where nothing or too much would be computed."""
        gradient = direction is Direction.INPUT_GRADIENT
        stride: Any = KINDS[variant].stride
        phases = gradient and stride == 2 and (variant == STRIDED_LARGE or case.index % 2 == 1)
        side, dilation = 4 if gradient and stride == 2 and not phases else 3, 1
        if stride == 2 and direction is Direction.WEIGHT_GRADIENT:
            return None
        if stride == 1 and case.padding_mode == "zeros" and case.index % 4 == 1:
            dilation = case.dilation
        kernel: tuple[int, ...] = (side, side)
        if case.axes == 3:
            folds = direction is Direction.WEIGHT_GRADIENT and case.padding_mode != "zeros"
            if stride == 2 or folds:
                return None
            deep = 1 if gradient or isinstance(case.stride, int) else case.stride[0]
            kernel, stride, dilation = (case.kernel[0], *kernel), (deep, 1, 1), 1
        elif case.axes != 2:
            return None
        most = 2 * (dilation if isinstance(dilation, int) else max(dilation))
        size = tuple(max(n, k + most + 2) for n, k in zip(case.size, kernel, strict=True))
        if not 0 < case.in_channels * case.out_channels * prod(size) < MOST_EXAMPLE_VALUES:
            return None
        odd = {"padding": 1, "padding_mode": "zeros"} if phases else {}
        return bent(
            case, kernel=kernel, stride=stride, dilation=dilation, groups=1, size=size, dtypes=("float32", "float32"),
            **odd,
        )  # fmt: skip


@lru_cache(maxsize=512)
def cost(p: Problem, variant: str) -> int:
    """What an image takes, in multiply-adds: a transformed number counts for `MOVED`, a transformed weight that a call
    makes for `MADE` beside its packing. Weights of few tiles are transformed in registers."""
    channels, outputs = whole_vectors(p.channels), whole_vectors(p.outputs)
    total, kind, one = CALL, kind_of(p, variant), whole(p) if KINDS[variant].stride > 1 else None
    for q in (one,) if one else p.passes:
        sides = [
            Counter(len(range(first, n, apart)) for first in range(min(n, apart)))
            for n, apart in zip(q.output_size(p.size)[1:], spacing(q)[1:], strict=True)
        ]
        planes, parts, products, tiles = q.counts[0], prod(side.total() for side in sides), 0, 0
        for (height, many), (width, times) in product(*(side.items() for side in sides)):
            shared = product(kind.shared(height), kind.shared(width))
            products += many * times * sum(a * b * max(ROWS, p.size[0] * m * n) for (a, m), (b, n) in shared)
            tiles += many * times * tiles_of(kind, 1, (p.size[0], height, width))
        weights = planes * p.channels * p.outputs
        total += products * (planes * p.channels * outputs + MOVED[2] * (planes * channels + outputs))
        total += PART * (parts - 1)
        if p.held:
            # the other kinds have no such kernels, and read their transform, which costs little where a cache holds it
            near = kind == KINDS[LARGE] or weights * kind.weights**2 * p.machine.element <= tuned(p).held_bytes
            few = near and tiles <= tuned(p).few_tiles * parts
            total += parts * read(p, weights * (kind.taps**2 if few else kind.weights**2))
        else:
            total += parts * weights * (PACKED * kind.taps**2 + MADE * kind.weights**2)
    return total


def _direct_bfloat16(p: Problem) -> str | None:
    """Why the direct kernels are faster where they multiply bfloat16, two steps at once."""
    if not p.types.rounded or not p.types.packed or not _native.multiplies_bfloat16():
        return None
    least = tuned(p).size_bfloat16
    apart = spacing(p.passes[0])[1:]
    if p.passes[0].counts[1] == 3 and p.passes[0].stride[1:] == apart and min(p.size[1:]) >= least * max(apart):
        return None
    return (
        f"bfloat16 is multiplied at twice the rate of float32 by the direct kernels, and Winograd pays from {least} x "
        f"{least} outputs at stride 1 on"
    )


METHOD = Winograd()
