"""
An array four times as large as the memory it runs under
========================================================

A mosaic of noise and waves lies in a zarr store on disk. Two worker processes of a ``LocalCluster``, held to a limit of
memory that a nanny watches, blur it and take its gradient, and write the result to another store. ``fastconv.dask``
sends a block its neighbours' borders alone, so that no worker ever holds more than a few chunks.

::

    pip install "fastconv[dask]" zarr
    python examples/dask_zarr.py [--limit 256] [--workers 2] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from dask.distributed import Client, LocalCluster, progress

import fastconv
from fastconv.dask import conv2d

CHUNK = 1024  # rows and columns: 4 MB in float32


def filters() -> np.ndarray:
    """Gradient of a Gaussian blur along rows and columns: (2, 1, 7, 7)."""
    place = np.arange(-3.0, 4.0)
    bell = np.exp(-(place**2) / 2)
    slope = -place * bell
    pair = np.stack([np.outer(slope, bell), np.outer(bell, slope)]) / bell.sum() ** 2
    return pair[:, None].astype("float32")


def mosaic(block_info: dict | None = None) -> np.ndarray:
    """A chunk of the image: waves with noise, made from the place of the chunk alone."""
    assert block_info is not None
    (top, bottom), (left, right) = block_info[None]["array-location"][1:]
    y, x = np.ogrid[top:bottom, left:right]
    random = np.random.default_rng((top, left))
    waves = np.sin(0.01 * x) * np.cos(0.013 * y)
    return (waves + 0.1 * random.standard_normal(waves.shape, "float32"))[None].astype("float32")


def peak() -> int:
    """The most bytes that this process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=256, help="memory of one worker in MB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the stores go; a temporary folder by default")
    given = parser.parse_args()
    total = given.limit * given.workers * 10**6
    side = -(-int((4 * total / 4) ** 0.5) // CHUNK) * CHUNK
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    cluster = LocalCluster(
        n_workers=given.workers, threads_per_worker=1, memory_limit=given.limit * 10**6, dashboard_address=None
    )
    try:
        with cluster, Client(cluster) as client:
            chunks = ((1,), (CHUNK,) * (side // CHUNK), (CHUNK,) * (side // CHUNK))
            image = da.map_blocks(mosaic, chunks=chunks, dtype="float32", meta=np.empty((0, 0, 0), "float32"))
            size, limit = image.nbytes / 1e6, total / 1e6
            print(f"image {side} x {side}, {size:,.0f} MB, {size / limit:.1f} times the {limit:,.0f} MB of all workers")
            source, target = folder / "image.zarr", folder / "edges.zarr"
            begin = time.perf_counter()
            write = image.to_zarr(str(source), compute=False).persist()
            progress(write, notebook=False)
            client.compute(write, sync=True)
            print(f"\nwritten in {time.perf_counter() - begin:.1f} s")
            stored = da.from_zarr(str(source))
            edges = conv2d(stored, filters(), padding="same", padding_mode="symmetric")
            strength = da.sqrt(edges[0] ** 2 + edges[1] ** 2)
            begin = time.perf_counter()
            work = strength.to_zarr(str(target), compute=False).persist()
            progress(work, notebook=False)
            client.compute(work, sync=True)
            seconds = time.perf_counter() - begin
            print(f"\nconvolved in {seconds:.1f} s, {side * side / seconds / 1e6:.0f} million pixels a second")
            for address, most in client.run(peak).items():
                print(f"worker {address.rpartition(':')[2]}: at most {most / 1e6:.0f} MB of {given.limit} MB")
        check(source, target)
    finally:
        shutil.rmtree(folder)


def check(source: Path, target: Path) -> None:
    """A corner and the seam of four chunks have the bits of a plain call."""
    image, found = zarr.open_array(str(source), mode="r"), zarr.open_array(str(target), mode="r")
    part = fastconv.conv2d(image[:, :200, :200], filters(), padding="same", padding_mode="symmetric")
    corner = np.sqrt(part[0] ** 2 + part[1] ** 2)[:190, :190]
    part = fastconv.conv2d(image[:, CHUNK - 103 : CHUNK + 103, CHUNK - 103 : CHUNK + 103], filters())
    seam = np.sqrt(part[0] ** 2 + part[1] ** 2)
    assert np.array_equal(found[:190, :190], corner)
    assert np.array_equal(found[CHUNK - 100 : CHUNK + 100, CHUNK - 100 : CHUNK + 100], seam)
    print("a corner and a seam of four chunks: the bits of a plain call")


if __name__ == "__main__":
    main()
