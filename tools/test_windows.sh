#!/usr/bin/env bash
# Cross-compiles fastconv for Windows on x86-64 with clang-cl, through the part of setup.py that serves it there, and
# runs its tests in Windows' Python under Wine: make windows
#
#   tools/test_windows.sh [pytest arguments]     default: the tests below, with FASTCONV_TEST_CASES=200
#
# Needs Debian's packages clang-tools, lld, llvm, mingw-w64, unzip and wine64, and for $PYTHON (default python3) a
# CPython from 3.11 with its C headers, Cython, setuptools and pip. It stands in for a Windows machine and is none: the C
# headers are mingw-w64's and not Microsoft's, and the OpenMP runtime is Intel's build of LLVM's.
# WINDOWS_PYTHON names the zip of an embeddable Python (python.org, Windows, "embeddable package") to use in place of
# the one downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
BUILD=$PWD/build/windows
ROOT=$BUILD/root
EMBEDDABLE=https://www.python.org/ftp/python/3.13.2/python-3.13.2-embed-amd64.zip
NUMPY=numpy==2.1.0 # the last whose Python 3.13 wheels need no function that Wine 8 lacks
MINGW=${MINGW:-/usr/x86_64-w64-mingw32}
DEFAULT_TESTS=(tests/core/test_against_reference.py tests/core/test_api.py)

need() {
    command -v "$1" >/dev/null || { echo "$0: $1 not found; on Debian: apt install $2" >&2; exit 2; }
}
need lld-link lld
need llvm-dlltool llvm
need unzip unzip
need wine wine64
clang=$(compgen -c clang-cl | sort -V | tail -1)
need "${clang:-clang-cl}" clang-tools
[ -d "$MINGW/include" ] || { echo "$0: $MINGW/include not found; on Debian: apt install mingw-w64" >&2; exit 2; }
"$PYTHON" -c 'import Cython, setuptools, pip' || { echo "$0: $PYTHON needs cython, setuptools and pip" >&2; exit 2; }

# Windows' Python with NumPy, pytest and an OpenMP runtime.
unpack_root() {
    rm -rf "$ROOT" "$ROOT.new"
    mkdir -p "$ROOT.new"
    local zip=${WINDOWS_PYTHON:-$BUILD/python.zip}
    [ -f "$zip" ] || "$PYTHON" -c 'import sys, urllib.request as r; r.urlretrieve(*sys.argv[1:])' "$EMBEDDABLE" "$zip"
    unzip -qo "$zip" -d "$ROOT.new"
    rm "$ROOT.new/_wmi.pyd" # Python does without it, and Wine 8 lacks what it calls
    local number=$(cd "$ROOT.new" && echo python3?*.dll)
    number=${number#python3} number=${number%.dll}
    "$PYTHON" -m pip --quiet install --target "$ROOT.new/packages" --only-binary=:all: --python-version "3.$number" \
        --platform win_amd64 "$NUMPY" pytest pytest-timeout colorama
    "$PYTHON" -m pip --quiet download --no-deps --only-binary=:all: --platform win_amd64 --dest "$BUILD" intel-openmp
    unzip -qjo "$BUILD"/intel_openmp*.whl '*/Library/bin/libiomp5md.dll' '*/Library/lib/libiomp5md.lib' -d "$ROOT.new"
    mv "$ROOT.new" "$ROOT"
}
mkdir -p "$BUILD"
[ -d "$ROOT" ] || unpack_root

# What Visual Studio would lend: headers, import libraries, and the start of a DLL.
mkdir -p "$BUILD/bin" "$BUILD/include" "$BUILD/lib"
cp -r "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/." "$BUILD/include/"
cat >"$BUILD/include/pyconfig.h" <<'END_H'
/* What of Python's PC/pyconfig.h a module of the stable ABI looks at. */
#pragma once
#define MS_WINDOWS
#define MS_WIN32
#define MS_WIN64
#define Py_ENABLE_SHARED 1
#define HAVE_DECLSPEC_DLL
#define NT_THREADS
#define WITH_THREAD 1
#define WITH_DOC_STRINGS 1
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_TIME_T 8
#define ALIGNOF_SIZE_T 8
#define HAVE_UINTPTR_T 1
#define HAVE_SSIZE_T 1
#define HAVE_IO_H
#include <stdio.h>
#include <io.h>
#pragma comment(lib, "python3.lib")
END_H
import_library() { # NAME DLL: the DLL's own list of exports
    { echo EXPORTS; llvm-readobj --coff-exports "$2" | sed -n 's/^ *Name: \(.\+\)$/\1/p'; } >"$BUILD/lib/$1.def"
    llvm-dlltool -m i386:x86-64 -D "$(basename "$2")" -d "$BUILD/lib/$1.def" -l "$BUILD/lib/$1.lib"
}
import_library python3 "$ROOT/python3.dll"
import_library vcruntime "$ROOT/vcruntime140.dll"
for name in ucrt kernel32; do cp "$MINGW/lib/lib$name.a" "$BUILD/lib/$name.lib"; done
named_imports() { # NAME DLL SYMBOL...: what mingw-w64 has in libraries of its own instead
    { echo EXPORTS; printf '%s\n' "${@:3}"; } >"$BUILD/lib/$1.def"
    llvm-dlltool -m i386:x86-64 -D "$2" -d "$BUILD/lib/$1.def" -l "$BUILD/lib/$1.lib"
}
named_imports math api-ms-win-crt-math-l1-1-0.dll exp ldexp pow
named_imports ntdll ntdll.dll __chkstk
cp "$ROOT/libiomp5md.lib" "$BUILD/lib/libomp.lib"
cat >"$BUILD/start.c" <<'END_C'
#pragma comment(lib, "vcruntime.lib")
#pragma comment(lib, "ucrt.lib")
#pragma comment(lib, "kernel32.lib")
#pragma comment(lib, "math.lib")
#pragma comment(lib, "ntdll.lib")
int _fltused = 1;
unsigned long long __security_cookie = 0x2b992ddfa232ull;
void __security_check_cookie(unsigned long long cookie) { if (cookie != __security_cookie) __builtin_trap(); }
int _DllMainCRTStartup(void *module, unsigned reason, void *reserved) { return 1; }
END_C
cat >"$BUILD/bin/clang-cl" <<END_SH
#!/bin/sh
exec "$clang" --target=x86_64-pc-windows-msvc -D__GNUC__=12 -D__GNUC_MINOR__=2 -D_UCRT "-I$BUILD/include" \\
    /imsvc"$MINGW/include" "\$@"
END_SH
printf '#!/bin/sh\nexec lld-link "$@"\n' >"$BUILD/bin/link.exe"
chmod +x "$BUILD"/bin/*
"$BUILD/bin/clang-cl" /nologo /c /GS- /Zl "/Tc$BUILD/start.c" "/Fo$BUILD/start.obj" -Wno-everything
llvm-lib "/out:$BUILD/lib/msvcrt.lib" "$BUILD/start.obj"
llvm-lib /llvmlibempty "/out:$BUILD/lib/oldnames.lib"

# The cross build: this machine's Python runs setup.py as in the developer prompt of Visual Studio.
env _PYTHON_HOST_PLATFORM=win-amd64 DISTUTILS_USE_SDK=1 MSSdk=1 PATH="$BUILD/bin:$PATH" LIB="$BUILD/lib" \
    CC=clang-cl FASTCONV_ABI3=1 "$PYTHON" setup.py --quiet build --build-base "$BUILD/build" --build-lib "$BUILD/lib-fastconv" \
    build_ext --compiler=msvc
mv "$BUILD"/lib-fastconv/fastconv/_native.*.so "$BUILD/lib-fastconv/fastconv/_native.pyd"

# Wine's folder holds a link to /, which whoever searches this checkout would follow: it lies elsewhere.
export WINEPREFIX=$(mktemp -d) WINEDEBUG=-all
trap 'wineserver -k; rm -rf "$WINEPREFIX"' EXIT
wine winecfg /v win10 </dev/null 2>&1 | cat
printf '%s\n' "$(cd "$ROOT" && echo python3?*.zip)" . packages "$(winepath -w "$BUILD/lib-fastconv")" "$(winepath -w "$PWD/tests")" \
    'import site' >"$ROOT/$(cd "$ROOT" && echo python3?*._pth)"
export PYTHONDONTWRITEBYTECODE=1 FASTCONV_TEST_CASES=${FASTCONV_TEST_CASES:-200}
[ $# -gt 0 ] || set -- "${DEFAULT_TESTS[@]}"
export KMP_AFFINITY=disabled # Wine 8 does not know the function by which the OpenMP runtime asks for processors
wine "$ROOT/python.exe" -m pytest -p no:cacheprovider "$@" </dev/null 2>&1 | cat # Wine's Python opens pipes, not files
