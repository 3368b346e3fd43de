"""Builds the native extension `fastconv._native`; every piece of metadata is in pyproject.toml.

The micro-kernels (src/kernels/kernels.c) are one source compiled once per instruction set (ISA); the objects are
linked into the extension, and src/dispatch.c picks one at run time. So the build needs no -march=native, and the
result runs on any machine.

Environment variables, for development only:
  FASTCONV_SANITIZE=address,undefined   build with these sanitizers (see CONTRIBUTING.md)
  FASTCONV_DEBUG=1                      keep debug information and assertions
  FASTCONV_COVERAGE=1                   count which lines run (GCC's gcov; see tests/reliability/coverage.py)
  FASTCONV_ABI3=0 or 1                  a module for this Python alone, or for every CPython from 3.11 (abi3)

A wheel holds an abi3 module, a development build (build_ext --inplace, an editable install) a native one: the price of
the former is measured by bench/abi3_overhead.py. Free-threaded Pythons have no stable ABI before 3.15: always native.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path("src")
KERNELS = SOURCE / "kernels" / "kernels.c"
INCLUDE = [str(SOURCE), str(SOURCE / "kernels")]
# What an object depends on: headers and included .pxi files too, and the flags in this file.
DEPENDS = sorted(str(path) for path in SOURCE.rglob("*") if path.suffix in {".c", ".h", ".pyx", ".pxi", ".pxd"})
DEPENDS.append("setup.py")

# The oldest CPython of the stable ABI that buffers are in: the macro for C and the tag for wheels.
LIMITED_API = "0x030B0000"
ABI3_TAG = "cp311"
ABI3 = bool(
    int(os.environ.get("FASTCONV_ABI3") or "bdist_wheel" in sys.argv)
    and sys.implementation.name == "cpython"
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)

COMMON_FLAGS = ["-O3", "-std=gnu11", "-fvisibility=hidden"]
# None changes a result: errno and trapped exceptions are never looked at and block vectorisation; integer sums may pass
# beyond the range and come back (plan.py makes sure that the result fits), which -fwrapv defines.
KERNEL_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-Wall", "-Wextra"]
if sys.platform != "win32":  # kernels throw nothing and call nobody who does; Windows wants to walk any stack
    KERNEL_FLAGS.append("-fno-asynchronous-unwind-tables")

NO_COMPILER = """\
fastconv is compiled on installation, and no working C compiler was found (tried: {command}).
Install GCC or Clang and the C headers of Python, then install fastconv again:
  Debian, Ubuntu:  apt install build-essential python3-dev
  Fedora, RHEL:    dnf install gcc python3-devel
  macOS:           xcode-select --install && brew install libomp
  Windows:         winget install LLVM.LLVM (in Visual Studio's developer prompt)
To use another compiler, set CC, for example CC=clang.
The compiler said: {reason}"""

NO_CLANG_CL = """\
fastconv is written with the vector types of GCC and Clang, which Microsoft's cl.exe does not have, and no clang-cl was
found (tried: {command}). Install LLVM beside Visual Studio, then install fastconv again:
  winget install LLVM.LLVM
To use a clang-cl that lies elsewhere, set CC to its path."""

NO_OPENMP = """\
fastconv uses OpenMP for its threads, and {command} cannot build a program with it.
Install the OpenMP runtime of the compiler, then install fastconv again:
  Debian, Ubuntu:  apt install libgomp1 (GCC) or libomp-dev (Clang)
  Fedora, RHEL:    dnf install libgomp (GCC) or libomp-devel (Clang)
  macOS:           brew install libomp
  Windows:         winget install LLVM.LLVM
The compiler said: {reason}"""


@dataclass(frozen=True)
class ISA:
    """An instruction set the kernels are compiled for: all of kernels.c, or what it adds to the set that it extends."""

    name: str
    flags: tuple[str, ...]  # beside those of the set that it extends
    extends: str | None = None

    @property
    def source(self) -> Path:
        return SOURCE / "kernels" / f"{self.name}.c" if self.extends else KERNELS


BASELINE = ISA("baseline", ())
# On ARM, GCC's first scheduling pass loads the whole column of a register tile ahead, and 30 values leave no register
# for 2 of the 24 sums (GCC 12); without it no micro-kernel uses the stack (tests/kernels/test_machine_code.py).
BASELINE_GCC_ARM = ISA("baseline", ("-fno-schedule-insns",))
X86_ISAS = [
    ISA("avx2", ("-mavx2", "-mfma", "-mf16c")),
    ISA("avx2_vnni", () if os.environ.get("FASTCONV_EVEX_VNNI") else ("-mavxvnni",), extends="avx2"),
    ISA(
        "avx512",
        ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
    ),
    ISA("avx512_vnni", ("-mavx512vnni",), extends="avx512"),
    ISA("avx512_bf16", ("-mavx512bf16",), extends="avx512_vnni"),
]
ARM_ISAS = [
    ISA("neon_dotprod", ("-march=armv8.2-a+dotprod",), extends="baseline"),
    ISA("neon_i8mm", ("-march=armv8.2-a+dotprod+i8mm",), extends="neon_dotprod"),
]

PROBE_COMPILER = "#include <Python.h>\nint fastconv_probe(void) { return PY_MAJOR_VERSION; }\n"
PROBE_OPENMP = "#include <omp.h>\nint fastconv_probe(void) { return omp_get_max_threads(); }\n"
PROBE_X86 = "#ifndef __x86_64__\n#error not x86-64\n#endif\nint fastconv_probe(void) { return 0; }\n"
PROBE_ARM = PROBE_X86.replace("__x86_64__", "__aarch64__").replace("x86-64", "64-bit ARM")
PROBE_GCC_ARM = PROBE_X86.replace("ndef __x86_64__", " !defined(__aarch64__) || defined(__clang__)")
PROBE_GCC_WINDOWS = PROBE_X86.replace("ndef __x86_64__", " !defined(__MINGW32__) || defined(__clang__)")
# On Windows the stack is aligned to 16 bytes and GCC saves wider vectors there as if it were aligned to theirs (its bug
# 54412): let the assembler write moves that need no alignment.
GCC_WINDOWS_FLAGS = ("-Wa,-muse-unaligned-vector-move",)


def find_clang_cl() -> Path:
    """clang-cl as CC names it, on the path, or where LLVM's installer and Visual Studio's put it."""
    wish = os.environ.get("CC", "clang-cl")
    folders = [Path(os.environ.get("PROGRAMFILES", r"C:\Program Files"), "LLVM", "bin")]
    if studio := os.environ.get("VCINSTALLDIR"):
        folders.append(Path(studio, "Tools", "Llvm", "x64", "bin"))
    for place in (None, *folders):
        found = shutil.which(wish, path=place and str(place))
        if found and Path(found).stem.lower().startswith("clang-cl"):
            return Path(found)
    raise SystemExit(NO_CLANG_CL.format(command=wish))


def clang_cl_flags(flags: list[str]) -> list[str]:
    """Flags of Clang as clang-cl takes them: some of its own have the same spelling and another meaning."""
    return [flag if flag.startswith(("/", "-D", "-openmp")) else f"/clang:{flag}" for flag in flags]


def openmp_choices(clang_cl: Path | None) -> Iterator[tuple[list[str], list[str]]]:
    """Compile and link flags that may turn OpenMP on: GCC and Clang, then Apple's Clang with Homebrew's libomp."""
    if clang_cl:  # LLVM's own runtime, then Visual Studio's copy of it
        yield ["-openmp"], [f"/LIBPATH:{clang_cl.parent.parent / 'lib'}", "libomp.lib"]
        return
    yield ["-fopenmp"], ["-fopenmp"]
    prefixes = []
    if brew := shutil.which("brew"):
        found = subprocess.run([brew, "--prefix", "libomp"], capture_output=True, text=True, check=False)
        prefixes = [found.stdout.strip()] if found.returncode == 0 else []
    for prefix in [*prefixes, ""]:
        include, library = ([f"-I{prefix}/include"], [f"-L{prefix}/lib"]) if prefix else ([], [])
        yield ["-Xpreprocessor", "-fopenmp", *include], [*library, "-lomp"]


def debug_flags() -> tuple[list[str], list[str]]:
    """Extra compile and link flags asked for through the environment."""
    if sanitizers := os.environ.get("FASTCONV_SANITIZE"):
        flag = f"-fsanitize={sanitizers}"
        level = os.environ.get("FASTCONV_SANITIZE_LEVEL", "-O1")  # -O0 compiles twenty times as fast
        return ["-g", level, "-UNDEBUG", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", flag], [flag]
    if os.environ.get("FASTCONV_COVERAGE"):  # without optimisation, which merges lines and branches
        return ["-g0", "-O0", "--coverage"], ["--coverage"]
    if os.environ.get("FASTCONV_EVEX_VNNI"):  # kernels/avx2_vnni.c
        return ["-g0", "-DFASTCONV_EVEX_VNNI"], []
    if os.environ.get("FASTCONV_DEBUG"):
        return ["-g", "-UNDEBUG"], []
    return ["-g0"], []


def say(message: str) -> None:
    """What the build is doing, for the person who waits: pip shows it with -v."""
    print(f"fastconv: {message}\n", end="", flush=True)  # in one piece: two compilers are started side by side


class BuildNative(build_ext):
    """Probes the compiler, compiles the kernels once per ISA, and builds the extension around them."""

    def build_extensions(self) -> None:
        self.clang_cl: Path | None = None
        if self.compiler.compiler_type == "msvc":  # setuptools' class for cl.exe: clang-cl takes its command line
            self.clang_cl = find_clang_cl()
            self.compiler.initialize(self.plat_name)
            self.compiler.cc = str(self.clang_cl)
            self.compiler.compile_options.remove("/GL")
        openmp_compile, openmp_link = self.probe()
        extra_compile, extra_link = ([], []) if self.clang_cl else debug_flags()
        self.native_flags = self.spelt([*COMMON_FLAGS, *openmp_compile, *extra_compile])
        self.native_link_flags = [*openmp_link, *extra_link]
        self.isas = [BASELINE_GCC_ARM if self.compiles(PROBE_GCC_ARM) else BASELINE]
        more = GCC_WINDOWS_FLAGS if self.compiles(PROBE_GCC_WINDOWS) else ()
        probe, isas = (PROBE_X86, X86_ISAS) if self.compiles(PROBE_X86) else (PROBE_ARM, ARM_ISAS)
        for isa in isas:
            parent = [one for one in self.isas if one.name == isa.extends]
            if isa.extends and not parent:
                continue
            isa = replace(isa, flags=(*(parent[0].flags if parent else more), *isa.flags))
            if self.compiles(probe, flags=isa.flags):
                self.isas.append(isa)
        super().build_extensions()

    def spelt(self, flags: list[str]) -> list[str]:
        """Flags of GCC and Clang for the compiler at hand."""
        return clang_cl_flags(flags) if self.clang_cl else flags

    @property
    def command(self) -> list[str]:
        """What compiles one file, before its own flags."""
        if self.clang_cl:
            folders = [*self.compiler.include_dirs, *type(self.compiler).include_dirs]
            return [self.compiler.cc, "/nologo", "/MD", "-Werror=unknown-argument", *(f"-I{path}" for path in folders)]
        return [*self.compiler.compiler_so, *(f"-I{path}" for path in self.compiler.include_dirs)]

    def build_extension(self, ext: Extension) -> None:
        begin = time.monotonic()
        ext.define_macros = [(f"FASTCONV_HAVE_{isa.name.upper()}", "1") for isa in self.isas[1:]]
        sources = runpy.run_path("fastconv/_core/built.py")["fingerprint"](SOURCE)
        ext.define_macros.append(("FASTCONV_SOURCES", f"{sources:#x}ULL"))
        if ABI3:
            ext.define_macros.append(("Py_LIMITED_API", LIMITED_API))
        ext.extra_compile_args = self.native_flags
        ext.extra_link_args = self.native_link_flags
        ext.extra_objects = self.compile_kernels()
        ext.sources = [self.translate(ext), str(SOURCE / "dispatch.c"), str(SOURCE / "tasks.c")]
        target = Path(self.get_ext_fullpath(ext.name))
        for other in target.parent.glob("_native.*"):  # of another Python or ABI: it would go into the wheel as well
            if other.suffix in {".so", ".pyd"} and other != target:
                other.unlink()
        newest = max(os.path.getmtime(path) for path in DEPENDS)
        stale = self.force or not target.exists() or target.stat().st_mtime < newest
        if stale:
            say("compiling the drivers ...")
        super().build_extension(ext)
        if stale:
            say(f"compiled in {time.monotonic() - begin:.0f} s")
        if self.clang_cl and (runtime := self.clang_cl.with_name("libomp.dll")).exists():
            shutil.copy2(runtime, target.parent)  # Python looks for it beside the module, and not along the path

    def compile_kernels(self) -> list[str]:
        """One object per ISA, two compilers at a time; an object newer than all it depends on is kept."""
        newest = max(os.path.getmtime(path) for path in DEPENDS if not path.endswith((".pyx", ".pxi", ".pxd")))
        settings = "\n".join([*self.native_flags, *self.command, os.environ.get("CFLAGS", "")])

        def compile_for(isa: ISA) -> str:
            folder = Path(self.build_temp, "kernels", isa.name)
            folder.mkdir(parents=True, exist_ok=True)
            record = folder / "settings.txt"  # a change of flags rebuilds too
            target = folder / isa.source.with_suffix(self.compiler.obj_extension)
            current = target.exists() and target.stat().st_mtime > newest
            if self.force or not current or not record.exists() or record.read_text() != settings:
                say(f"compiling the kernels for {isa.name} ({self.isas.index(isa) + 1} of {len(self.isas)}) ...")
                flags = [*self.native_flags, *self.spelt([*KERNEL_FLAGS, f"-DFASTCONV_ISA={isa.name}", *isa.flags])]
                objects = self.compiler.compile(
                    [str(isa.source)], output_dir=str(folder), include_dirs=INCLUDE, extra_postargs=flags
                )
                record.write_text(settings)
                return str(objects[0])
            return str(target)

        with ThreadPoolExecutor(max_workers=2) as pool:
            return list(pool.map(compile_for, self.isas))

    def translate(self, ext: Extension) -> str:
        """Cython to C, out of the source tree."""
        from Cython.Build import cythonize  # here, so that an sdist can be made without Cython

        module = Extension(ext.name, [str(SOURCE / "_native.pyx")])
        build_dir = str(Path(self.build_temp, "cython"))
        # Cython looks for the header of `fastconv._native` in a folder `fastconv`.
        headers = Path(self.build_temp, "headers")
        (headers / "fastconv").mkdir(parents=True, exist_ok=True)
        shutil.copy2(SOURCE / "_native.pxd", headers / "fastconv")
        lines = bool(os.environ.get("FASTCONV_COVERAGE"))  # #line: what gcov counts belongs to the Cython sources
        (translated,) = cythonize(
            [module], build_dir=build_dir, language_level=3, force=self.force,
            include_path=[str(headers), *INCLUDE], quiet=True, emit_linenums=lines,
        )  # fmt: skip
        return str(translated.sources[0])

    # Probing

    def probe(self) -> tuple[list[str], list[str]]:
        """OpenMP's compile and link flags, or one message that says what to install."""
        command = self.command[0]
        if not self.compiles(PROBE_COMPILER):
            raise SystemExit(NO_COMPILER.format(command=command, reason=self.reason))
        reason = ""
        for compile_flags, link_flags in openmp_choices(self.clang_cl):
            if self.compiles(PROBE_OPENMP, flags=compile_flags, link_flags=link_flags):
                return compile_flags, link_flags
            reason = reason or self.reason
        raise SystemExit(NO_OPENMP.format(command=command, reason=reason))

    def compiles(
        self, text: str, *, flags: tuple[str, ...] | list[str] = (), link_flags: list[str] | None = None
    ) -> bool:
        """Whether the text compiles (and, given link flags, links); the compiler's words are left in `self.reason`."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "probe.c"), Path(folder, "probe.o")
            probe = Path(folder, "probe.so")
            source.write_text(text)
            files = [f"/Tc{source}", f"/Fo{target}"] if self.clang_cl else [str(source), "-o", str(target)]
            commands = [[*self.command, *self.spelt([*flags]), "-c", *files]]
            if link_flags is not None and self.clang_cl:
                libraries = [f"/LIBPATH:{path}" for path in type(self.compiler).library_dirs]
                linker = [self.compiler.linker, "/nologo", "/DLL", "/EXPORT:fastconv_probe", *libraries]
                commands.append([*linker, str(target), f"/OUT:{probe}", *link_flags])
            elif link_flags is not None:
                commands.append([*self.compiler.linker_so, str(target), "-o", str(probe), *link_flags])
            environment = {**os.environ, "PATH": self.compiler._paths} if self.clang_cl else None
            for command in commands:
                with contextlib.suppress(OSError):
                    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
                    if done.returncode == 0:
                        continue
                    said = done.stderr + done.stdout  # where link.exe writes
                    lines = [line for line in said.splitlines() if "error" in line] or [said.strip()]
                    self.reason = lines[0]
                    return False
                self.reason = f"{command[0]}: command not found"
                return False
        return True


if sys.maxsize < 2**32:
    raise SystemExit("fastconv needs a 64-bit Python.")

setup(
    ext_modules=[
        Extension(
            "fastconv._native",
            [str(SOURCE / "_native.pyx"), str(SOURCE / "dispatch.c"), str(SOURCE / "tasks.c")],
            include_dirs=INCLUDE,
            depends=DEPENDS,
            py_limited_api=ABI3,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": ABI3_TAG}} if ABI3 else {},
    cmdclass={"build_ext": BuildNative},
)
