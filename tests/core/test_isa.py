"""Which instruction set runs: the best that processor and system offer, or the one that FASTCONV_ISA names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastconv
from fastconv._core import isa as startup

QEMU = shutil.which("qemu-x86_64")
AVAILABLE = fastconv.info()["isas_available"]
CONVOLVE = """
import numpy as np, fastconv
x = np.arange(2 * 40 * 45 * 44, dtype=np.float32).reshape(2, 40, 45, 44) % 7 - 3
w = np.arange(50 * 40 * 9, dtype=np.float32).reshape(50, 40, 3, 3) % 5 - 2
y = fastconv.conv2d(x, w, padding=1, algorithm="direct")
dx, dw, db = fastconv.conv2d_backward(y % 8, x, w, padding=1, algorithm="direct")
print(fastconv.info()["isa"], *(float(np.abs(a).sum(dtype=np.float64)) for a in (y, dx, dw, db)))
"""


def run(code: str, isa: str | None, *emulator: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "FASTCONV_ISA"}
    environment["PYTHONPATH"] = str(Path(fastconv.__file__).parents[1])
    if isa is not None:
        environment["FASTCONV_ISA"] = isa
    return subprocess.run(
        [*emulator, sys.executable, "-P", "-c", code],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_best_set_is_taken():
    assert run("import fastconv; print(fastconv.info()['isa'])", None).stdout.strip() == AVAILABLE[-1]


def test_every_set_computes_the_same_integers():
    results = {}
    for isa in AVAILABLE:
        used, *sums = run(CONVOLVE, isa.upper()).stdout.split()  # in any case
        assert used == isa
        results[isa] = sums
    assert len({tuple(sums) for sums in results.values()}) == 1, results


@pytest.mark.parametrize("name", ["sse9", "native", "avx-512"])
def test_an_unknown_set_is_refused(name):
    done = run("import fastconv", name)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert f"FASTCONV_ISA={name}: it was not built" in message
    assert ", ".join(AVAILABLE) in message and "unset FASTCONV_ISA" in message


def test_a_set_that_the_machine_lacks_is_refused(monkeypatch):
    machine = SimpleNamespace(
        isa_use=lambda name: False, isas_built=lambda: ("baseline", "avx2"), isas_available=lambda: ("baseline",)
    )
    monkeypatch.setattr(startup, "_native", machine)
    monkeypatch.setenv("FASTCONV_ISA", "avx2")
    with pytest.raises(ImportError, match=r"FASTCONV_ISA=avx2: this machine does not offer it.*offered here: baseline"):
        startup.select_isa()


@pytest.mark.skipif(QEMU is None or "avx2" not in AVAILABLE, reason="needs qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="sanitizers do not run under the emulator")
@pytest.mark.parametrize(
    "processor",
    [
        "Nehalem",  # of 2008, without AVX: what is not for it ends in SIGILL
        "max,xsave=off",  # AVX2 in cpuid, but the operating system does not save its registers: XGETBV says so
    ],
)
def test_a_machine_without_avx_runs_the_baseline(processor):
    if run("import numpy", None, str(QEMU), "-cpu", processor).returncode != 0:
        pytest.skip("this build of NumPy does not run on such a processor")
    done = run(CONVOLVE, None, str(QEMU), "-cpu", processor)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["baseline", *run(CONVOLVE, "baseline").stdout.split()[1:]]
    refused = run("import fastconv", "avx2", str(QEMU), "-cpu", processor)
    assert "FASTCONV_ISA=avx2: this machine does not offer it" in refused.stderr
