"""What is computed piece by piece has the bits of the whole: nets in tiles, dask's blocks."""

from __future__ import annotations

import importlib.util

import numpy as np
from pieces import ASKED, described, forced_problem, random_chunks, random_net

import fastconv
from reliability.board import Outcome, first_case, row


@row("random nets in random tiles (`tiled_predict`) and whole", "the same bits", quick=36, full=3000, order=125,
     every_isa=True)  # fmt: skip
def nets_in_tiles(count: int) -> Outcome:
    outcome, pixels = Outcome(), 0
    for number in range(first_case(), first_case() + count):
        net, image, tiles = random_net((77, number))
        whole = net(image[None])[0]
        for tile in tiles:
            got = fastconv.tiled_predict(net, image, tile)
            pixels += got.size
            outcome.check(got.tobytes() == whole.tobytes(), f"net {number}: {image.shape} {tile} {described(net)}")
    outcome.measured = f"{outcome.failed} of {outcome.cases} results differ ({pixels:,} values)"
    return outcome


@row("every algorithm by name over dask arrays of random chunks and over the whole array", "the same bits", quick=36,
     full=4500, order=126, every_isa=True)  # fmt: skip
def dask_blocks(count: int) -> Outcome:
    if importlib.util.find_spec("dask") is None:
        return Outcome(skipped="dask is not installed")
    import dask.array as da

    from fastconv.dask import conv2d

    outcome, blocks = Outcome(), 0
    for number in range(first_case(), first_case() + count):
        rng = np.random.default_rng((78, number))
        x, w, bias, options = forced_problem(rng, ASKED[number % len(ASKED)])
        lazy = conv2d(da.from_array(x, chunks=tuple(random_chunks(rng, n) for n in x.shape)), w, bias, **options)
        got, whole = lazy.compute(scheduler="synchronous"), fastconv.conv2d(x, w, bias, **options)
        blocks += lazy.npartitions
        outcome.check(got.tobytes() == whole.tobytes(), f"case {number}: {x.shape} {w.shape} {options}")
    outcome.measured = f"{outcome.failed} of {outcome.cases} results differ ({blocks:,} blocks)"
    return outcome
