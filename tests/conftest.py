"""What every report of a test run must say: which code was tested, on how much machine."""

import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest

import fastconv
from fastconv import _native


def pytest_report_header(config: pytest.Config) -> str:
    info = fastconv.info()
    asked = os.environ.get("FASTCONV_ISA", "")
    return (
        f"fastconv {info['version']}: ISA {info['isa']}{f' (FASTCONV_ISA={asked})' if asked else ''} of "
        f"{', '.join(info['isas_available'])}; {info['threads']} thread(s) of {os.cpu_count()} CPU(s); "
        f"NumPy {np.__version__}"
    )


def pytest_collection_finish() -> None:
    """What was collected stays until the end: the collector of cycles need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=_native.isas_available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine, in use while a test runs. (Files with fewer have one of their own.)"""
    before = _native.isa_name()
    _native.isa_use(request.param)
    yield request.param
    _native.isa_use(before)


def _limits() -> tuple[object, ...]:
    return fastconv.get_num_threads(), _native.openmp_threads(), _native.isa_name()


@pytest.fixture(autouse=True)
def _the_process_is_left_as_it_was() -> Iterator[None]:
    """Numbers of threads are a matter of the whole process: a test that leaves its own behind changes later ones."""
    before = _limits()
    yield
    assert _limits() == before
