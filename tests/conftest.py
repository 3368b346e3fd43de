"""What every report of a test run must say: which code was tested, on how much machine."""

import os

import numpy as np
import pytest

import fastconv


def pytest_report_header(config: pytest.Config) -> str:
    info = fastconv.info()
    asked = os.environ.get("FASTCONV_ISA", "")
    return (
        f"fastconv {info['version']}: ISA {info['isa']}{f' (FASTCONV_ISA={asked})' if asked else ''} of "
        f"{', '.join(info['isas_available'])}; {info['threads']} thread(s) of {os.cpu_count()} CPU(s); "
        f"NumPy {np.__version__}"
    )
