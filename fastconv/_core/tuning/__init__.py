"""What a choice knows of a machine beside its registers: cache budgets, costs, and the work from which a method pays.

A set is a module with a `TUNING` and, above each group of numbers, the machine, the date and the command they were
measured with. An unknown machine takes `generic`, whose budgets follow from the sizes of its caches. No result depends
on a budget of a forward pass or input gradient; which algorithm pays does decide bits, and is the same in every call on
a machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Budgets(NamedTuple):
    """Bytes that a part of a task's data may take, for the cache that it is to stay in."""

    weight_slice: int  # weights under a register tile, which stream from the second level
    region: int  # packed input under a tile of outputs: second level
    sums: int  # of a block of the weight gradient: second level
    lane_region: int  # packed input of a chunk of lanes: second level, its output beside it
    winograd_sums: int  # of a block of tiles, read and written once a slice
    winograd_slice: int  # transformed weights of a slice of channels
    winograd_input: int  # transformed input of a block of tiles
    strassen_panel: int  # weights that may be read again and again from the second level


class Costs(NamedTuple):
    """Costs of a task of the direct driver in cycles, to share it out."""

    call: int  # of the micro-kernel
    pack: int  # a vector of the region
    weight: int  # a vector of weights, which most layouts transpose
    task: int  # all that a task does once


class Direct(NamedTuple):
    """The direct method."""

    costs: Costs
    merging_gain: float  # vector operations of merged phases, beside those of phases apart, at which they merge
    exchange_gain: float  # of the cycles, both estimated, at which the kernel becomes the image
    few_pixels: int  # of an image up to which the weight gradient is a convolution of the input by grad_output


class Lanes(NamedTuple):
    """The method with a lane an output channel."""

    channels: int  # of a group up to which the lanes idle less than in the direct kernels
    channels_gradient: int  # likewise, of the weight gradient
    idle_channels: int  # of a group from which on hardly any pixels a rectangle are slower than direct


class WinogradFrom(NamedTuple):
    """Work of an image from which on Winograd pays."""

    channels: int
    size: int  # outputs a side
    macs: int


class Winograd(NamedTuple):
    """Winograd's method; all numbers are of one image, so that a batch split changes nothing."""

    channels: int  # summed: fewer do not outweigh the transform back
    outputs: int
    macs: int
    size_held: int  # outputs a side where a plan holds the transformed weights
    size: int  # a single call transforms its weights for one image;
    size_wide: int  # with so many channels that arithmetic outweighs all else, also from here
    wide: int
    channels_dilated: int  # of a call, which transforms the weights anew for every phase
    gradient: WinogradFrom  # of the weight, whose sums are transformed once; `size` of a phase where dilated
    tiles_gradient: int  # of the whole batch
    small: WinogradFrom  # tiles of 2 x 2 outputs on maps that waste those of 4 x 4: a plan
    channels_small: int  # likewise a single call
    channels_smallest: int  # and one below `size_held`
    strided: dict[int, WinogradFrom]  # at stride 2 by taps: 3 x 3, or 2 x 2 in every phase
    size_strided_large: int  # outputs a side from which on tiles of 4 x 4 outputs waste little of the map
    batch_channels: int  # of a training step, which transforms the weights once for the batch
    batch_tiles: int  # of 4 x 4 outputs, over the batch
    few_tiles: int  # of a batch: more make up for storing the transformed weights
    held_bytes: int  # and for such a batch a plan holds no more of them than a cache does


class WinogradRows(NamedTuple):
    """Winograd along rows."""

    outputs: int  # from which on it pays
    size: int  # outputs a row, likewise
    rows: int  # of a block


class Strassen(NamedTuple):
    """Strassen's method, by levels."""

    pays: dict[int, tuple[int, int, int, int]]  # pixels of an image, channels, outputs, weights
    tiles: dict[int, int]  # of a block: their factors fill the second-level cache
    part: int  # tiles each time, whose products then stay in the first level


class Tuning(NamedTuple):
    """All of it."""

    name: str
    budgets: Budgets
    direct: Direct
    lanes: Lanes
    winograd: Winograd
    winograd_rows: WinogradRows
    strassen: Strassen

    def __hash__(self) -> int:
        return hash((self.name, self.budgets))


@lru_cache(maxsize=1)
def tuning_here() -> Tuning:
    """The set of this machine: measured where it is known, else derived from its caches."""
    from ...machine import caches, microarchitecture
    from . import generic, zen

    if microarchitecture() in zen.MACHINES:
        return zen.TUNING
    return generic.tuning(*caches())
