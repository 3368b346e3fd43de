"""The benchmark's layers under pytest-benchmark, fastconv alone: to follow its speed from commit to commit.

    python -m pytest bench                                          # everything, some minutes
    python -m pytest bench -k "vgg16 and fwd"                       # one set and pass
    python -m pytest bench --benchmark-save=NAME                    # keep the figures in .benchmarks/
    python -m pytest bench --benchmark-compare --benchmark-compare-fail=median:10%

`python -m fastconv bench` compares with other libraries. `make test` does not run this folder.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastconv import get_num_threads
from fastconv.bench.cases import PASSES, SETS, Case, make_data
from fastconv.bench.peers import Ours


def plain(case: Case) -> str:
    """A name that pytest shows unescaped."""
    return f"{case.set}-{case.name}".replace("×", "x").replace("→", "-")


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("case", [case for cases in SETS.values() for case in cases], ids=plain)
def test_layer(benchmark: Any, case: Case, pass_name: str) -> None:
    (ours,) = Ours(get_num_threads()).candidates(case, make_data(case), pass_name)
    benchmark.group = f"{case.set} {pass_name}"
    benchmark.extra_info.update(macs=case.macs, note=ours.note)
    benchmark.pedantic(ours.run, rounds=20, warmup_rounds=3)
