"""Show what is installed and what it uses.

The version, the instruction set (ISA) in use and those built and offered by this machine, the number of threads and
what decided it, the OpenMP runtime, the register tiles, NumPy's version and the processor's name.

FASTCONV_ISA=NAME chooses another ISA, OMP_NUM_THREADS=N another number of threads.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from .common import STDOUT, add_json, in_a_folder, write_json
from .machine import describe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json alone."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """The table, the same as JSON, or both."""
    in_a_folder(args.json)
    about = describe()
    write_json(about, args.json)
    if args.json != STDOUT:
        for name, value in _rows(about):
            print(f"{name:<18}{value}")
    return 0


def _rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and text of every line."""
    count = about["threads_explained"]
    asked = os.environ.get("FASTCONV_ISA", "").strip()
    quota = count["cgroup_quota"]
    wish = count["omp_num_threads"]
    tiles = about["register_tiles"].items()
    return [
        ("fastconv", about["version"]),
        ("ISA in use", f"{about['isa']} ({f'FASTCONV_ISA={asked}' if asked else 'the widest offered'})"),
        ("ISAs built", ", ".join(about["isas_built"])),
        ("ISAs offered", f"{', '.join(about['isas_available'])} (by this machine, of those built)"),
        ("threads", f"{count['threads']}, decided by {count['why']}"),
        ("  CPUs allowed", f"{count['affinity']} of {count['cpus']} (affinity mask)"),
        ("  cgroup quota", f"{quota} CPU(s)" if quota else "none"),
        ("  OMP_NUM_THREADS", str(wish) if wish else "not set"),
        ("OpenMP", about["openmp"]),
        ("register tiles", ", ".join(f"{name} {rows} x {columns}" for name, (rows, columns) in tiles)),
        ("", "pixels x output channels"),
        ("NumPy", about["numpy"]),
        ("Python", about["python"]),
        ("CPU", about["cpu"]),
        ("system", about["system"]),
    ]
