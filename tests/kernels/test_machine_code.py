"""The instructions in the compiled module: what must run anywhere holds no AVX, and register tiles stay in registers.

The linked module is disassembled with `objdump` (OBJDUMP names another). Its symbol table lists the local symbols of
every object file after the file's name: one group a source file, one `kernels.c` for each instruction set, and one file
for each that extends another.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import fastconv
from fastconv import _native

OBJDUMP = shutil.which(os.environ.get("OBJDUMP", "objdump"))
pytestmark = pytest.mark.skipif(OBJDUMP is None, reason="objdump (binutils) is not installed")

KERNELS = Path(__file__).resolve().parents[2] / "src" / "kernels"
EXTENDING = [isa for isa in fastconv.info()["isas_built"] if (KERNELS / f"{isa}.c").exists()]
WHOLE = [isa for isa in fastconv.info()["isas_built"] if isa not in EXTENDING]
ON_X86 = pytest.mark.skipif("avx2" not in fastconv.info()["isas_built"], reason="only x86-64 has several sets")
# Mnemonics of AVX begin with v, as no other that a compiler emits; those of mask registers begin with k.
AVX = re.compile(r"v\w+|k(add|and|andn|mov|not|or|ortest|shift[lr]|test|unpck|xnor|xor)[bwdq]+\b|.*%[yz]mm")
MULTIPLY = re.compile(r"(v?mulp|vfmadd|v?pmul|v?pmadd|vpdpwssd|vpdpbusd|vdpbf16ps|fmla|mla|fmul|mul|madd)\w*\s")
DOT = re.compile(r"(v?pmadd|vpdp|smull|u?s?dot)\w*\s")
# A vector register saved to the stack or read from it; addresses of rows, which are loaded ahead, may lie there.
SPILL = re.compile(r"(?=.*%[xyz]mm).*\(%rsp|(ldr|str|ldp|stp)\s+[qvsd]\d+,.*\[sp")


SMALL = 12  # vectors of a register tile below which a spill costs little


@dataclass
class Function:
    name: str
    isa: str | None  # of the kernels; None: compiled for every machine
    code: list[tuple[int, str]]  # address, instruction


def objdump(*options: str) -> list[str]:
    command = [str(OBJDUMP), *options, _native.__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()


@cache
def isa_of_functions() -> dict[int, str]:
    """Start of every kernel function -> its instruction set: the sets are linked in the order of `isas_built`, and what
    extends one has a file of its own name."""
    sets = iter(WHOLE)
    found: dict[int, str] = {}
    isa: str | None = None
    for line in objdump("-t"):
        if " df *ABS*" in line:
            file = Path(line.split()[-1])
            isa = next(sets) if file.name == "kernels.c" else file.stem if file.stem in EXTENDING else None
        elif extends := re.search(r" F .* fc_extend_(\w+)$", line):  # hidden, and called where the machine has the set
            found[int(line.split()[0], 16)] = extends[1]
        elif isa and re.match(r"[0-9a-f]+ l +F ", line):
            found[int(line.split()[0], 16)] = isa
    return found


@cache
def functions() -> tuple[Function, ...]:
    if not isa_of_functions():
        pytest.skip("the module was stripped of its symbols")
    found: list[Function] = []
    for line in objdump("-d", "--no-show-raw-insn"):
        if start := re.match(r"([0-9a-f]+) <(.+)>:", line):
            found.append(Function(start[2], isa_of_functions().get(int(start[1], 16)), []))
        elif found and (instruction := re.match(r" +([0-9a-f]+):\t(.+)", line)):
            found[-1].code.append((int(instruction[1], 16), instruction[2].removeprefix("{vex} ")))  # of AVX-VNNI
    return tuple(found)


def inner_loops(function: Function) -> list[list[str]]:
    """The instructions of every loop that holds no other: a jump back to the last target before it."""
    place = {address: i for i, (address, _) in enumerate(function.code)}
    loops = []
    for i, (address, text) in enumerate(function.code):
        jump = re.match(r"(?:j\w+|b(?:\.\w+)?|cbn?z\s+\w+,|tbn?z\s+\w+, #\w+,)\s+([0-9a-f]+) <", text)
        if jump and int(jump[1], 16) <= address and int(jump[1], 16) in place:
            loops.append((place[int(jump[1], 16)], i))
    return [
        [text for _, text in function.code[first : last + 1]]
        for first, last in loops
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in loops)
    ]


def uses_avx(function: Function) -> list[str]:
    return [f"{function.name}: {text}" for _, text in function.code if AVX.match(text)]


@ON_X86
def test_what_must_run_anywhere_holds_no_avx():
    """All but the kernels of the larger sets: a machine without them must get through import, dispatch and baseline."""
    found = [use for f in functions() if f.isa in (None, "baseline") for use in uses_avx(f)]
    assert not found, found[:20]


@ON_X86
@pytest.mark.parametrize("isa, register", [("baseline", "%xmm"), ("avx2", "%ymm"), ("avx512", "%zmm")])
def test_the_kernels_of_a_set_use_it(isa, register):
    """Guards the test above: functions are assigned to the right set, and AVX would be recognised."""
    if isa not in fastconv.info()["isas_built"]:
        pytest.skip(f"{isa} was not built")
    kernels = [f for f in functions() if f.isa == isa and f.name.startswith("micro_")]
    assert len(kernels) >= 18
    assert sum(any(register in text for _, text in f.code) for f in kernels) > len(kernels) // 2
    assert any(uses_avx(f) for f in kernels) == (isa != "baseline")


@ON_X86
def test_the_dispatcher_asks_the_operating_system():
    """XGETBV says whether the system saves the wide registers; cpuid alone does not."""
    assert any(text.startswith("xgetbv") for f in functions() for _, text in f.code)


def test_register_tiles_stay_in_registers():
    """The innermost loop of every micro-kernel of floats, and of pairs of integers and of bfloat16, has one
    multiplication a vector of its tile, and no spill."""
    if any("asan" in f.name for f in functions()):
        pytest.skip("a build with sanitizers is not optimised")
    kinds = r"micro_\d+_\d+_(float|double|int16|uint8|float_f16|float_bf16|pairs)"
    kernels = [f for f in functions() if re.fullmatch(kinds, f.name)]
    assert len(kernels) >= 36 * len(WHOLE) + 36 * len(EXTENDING)
    faults = []
    for f in kernels:
        vectors, rows = (int(number) for number in f.name.split("_")[1:3])
        # what rounds sums to bytes multiplies, too, by scales
        multiply = DOT if f.name.endswith(("int16", "uint8")) else MULTIPLY
        counts = [(sum(bool(multiply.match(text)) for text in loop), loop) for loop in inner_loops(f)]
        tiles = [loop for count, loop in counts if count >= vectors * rows]
        if not tiles:
            faults.append(f"{f.isa} {f.name}: the tile is not unrolled, so it lies in memory")
        if f.isa == "baseline" and f.name.endswith("f16"):  # of 16 bits: to widen takes registers of the few
            continue
        if f.name.endswith(("int16", "uint8")) and vectors * rows < SMALL:  # what rounds sums to bytes is kept there
            continue
        if f.isa == "neon_dotprod" and vectors * rows == 24:  # and four vectors that are taken off again
            continue
        if vectors * rows > 1:  # a single vector leaves so many registers that Clang 14 does not mind
            spills = [text for loop in tiles for text in loop if SPILL.match(text)]
            mask = [text for text in spills if f.name.endswith("bf16") and text.startswith("vmovdqa")]  # that widens
            faults += [f"{f.isa} {f.name}: {text}" for text in spills if text not in mask]
    assert not faults, faults[:20]
