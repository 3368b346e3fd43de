"""What a convolution takes, in multiply-adds of full vectors: the plain sums, and what fast methods share.

Of one image and one thread, so that no choice depends on the batch or the team. Numbers were measured on Zen 4 with
layers drawn at random (`bench/choice.py`, even seeds); they are ratios of rates of the machine.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from ..passes import terms, walked_alone
from ..problem import Problem, Use
from .direct_merged import saving
from .lanes import METHOD as A_LANE_AN_OUTPUT
from .method import LONG_SUM, Sums

# As long as a number of the weights takes: to be read in a run of a plan, from where it lies beyond the nearer caches,
# and to be packed in a call. (4 x 4 tiles have 20 numbers more a pair of channels than 2 x 2: on maps of 13 and 14
# pixels both take as long with empty caches, 192 to 512 channels, which says 9; ResNet-50 and VGG-16 gain 4 %.)
READ, PACKED = 9, 80
NEAR = 4 << 20  # bytes of weights that lie in nearer caches from run to run: what is beyond them is read
CALL = 400_000  # what a run costs beside, of any method
MOVED = {1: 8, 2: 12}  # a number that Winograd transforms along so many axes
PART = 1 << 19  # a further phase of the dilation
MARGIN = 1.05  # how many times as many there must be directly, for Winograd to be taken
PEAK = 58  # multiply-adds a nanosecond of one thread, in single precision
MERGED = 1.25  # a multiply-add of outputs that share vectors, or whose lanes are pixels
LANES = 16  # of the widest vectors
SINGLE = 23  # a multiply-add from one channel to one
SMALL_GROUP = 2  # a multiply-add of groups so small that a lane computes an output channel


def whole_vectors(channels: int) -> int:
    """Channels with the idle lanes of their last vector: of one width, so that machines choose alike."""
    return -(-channels // LANES) * LANES


@lru_cache(maxsize=512)
def plain_sums(p: Problem) -> int:
    """The direct kernels: taps that meet padding alone are left out, lanes that idle are not."""
    taps = sum(
        prod(q.output_size(p.size)) * prod(q.counts) if p.mode else walked_alone(q, p.size, p.input_size)
        for q in p.passes
    )
    if p.groups > 1 and A_LANE_AN_OUTPUT.why_not(p) is None:
        return CALL + SMALL_GROUP * p.channels * whole_vectors(p.groups * p.outputs) * taps
    total = p.groups * p.channels * whole_vectors(p.outputs) * taps
    share = min(1.0, MERGED * saving(Sums.of(p)._replace(images=1)))
    short = all(terms(q, p.channels) < LONG_SUM for q in p.passes)
    if p.held and short and 4 * p.outputs <= LANES <= p.channels:  # a lane a pixel
        share = min(share, MERGED * p.outputs / LANES)
    total = round(total * share)
    if p.channels * p.outputs == 1:
        total = max(total, SINGLE * p.groups * taps)
    weights = p.groups * p.channels * p.outputs * prod(p.geometry.kernel_size)
    return CALL + total + (read(p, weights) if p.held else PACKED * weights)


def read(p: Problem, weights: int) -> int:
    """What reading so many packed weights in a run of a plan takes."""
    return READ * (weights if p.use is Use.NETWORK else max(0, weights - NEAR // p.machine.element))
