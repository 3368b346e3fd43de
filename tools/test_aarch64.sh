#!/usr/bin/env bash
# Cross-compiles fastconv for 64-bit ARM and runs its tests there under user-mode emulation: make aarch64
#
#   tools/test_aarch64.sh [pytest arguments]     default: the tests below, with FASTCONV_TEST_CASES=200
#
# Needs Debian's packages gcc-aarch64-linux-gnu and qemu-user, and for $PYTHON (default python3) the Python version that
# Debian ships, with Cython, setuptools and pip. Neither root nor a foreign architecture in the system's package
# database is needed: ARM's Python, its C headers and the OpenMP runtime are unpacked under build/aarch64/root.
# Set DEBIAN_MIRROR to fetch them from elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
BUILD=$PWD/build/aarch64
ROOT=$BUILD/root
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
DEFAULT_TESTS=(tests/kernels/test_machine_code.py tests/core/test_against_reference.py tests/core/test_api.py
    tests/core/test_short_integers.py tests/core/test_quantised.py)

need() {
    command -v "$1" >/dev/null || { echo "$0: $1 not found; on Debian: apt install $2" >&2; exit 2; }
}
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need aarch64-linux-gnu-objdump binutils-aarch64-linux-gnu
need qemu-aarch64 qemu-user
need apt-get apt
version=$("$PYTHON" -c 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor}")')
SITE=$ROOT/usr/local/lib/python$version/dist-packages
"$PYTHON" -c 'import Cython, setuptools, pip' || { echo "$0: $PYTHON needs cython, setuptools and pip" >&2; exit 2; }

# ARM's Python with its headers, and OpenMP, resolved against an empty package database of our own.
unpack_root() {
    local apt=$BUILD/apt
    rm -rf "$ROOT"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$ROOT.new"
    . /etc/os-release
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR $VERSION_CODENAME main" >"$apt/sources.list"
    : >"$apt/status"
    local options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::lists=$apt/lists"
        -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt" -o "Dir::Etc::sourcelist=$apt/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User= -o Debug::NoLocking=1)
    apt-get "${options[@]}" update
    apt-get "${options[@]}" -y --no-install-recommends --download-only install \
        "python$version" "libpython$version-dev" libgomp1 libstdc++6
    for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$ROOT.new"; done
    mv "$ROOT.new" "$ROOT"
    rm -rf "$apt/archives"
}
[ -d "$ROOT" ] || unpack_root

# What the tests import: NumPy built for ARM, and pure Python.
[ -d "$SITE/pytest" ] || "$PYTHON" -m pip --quiet install --target "$SITE" --only-binary=:all: \
    --python-version "$version" --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
    numpy pytest pytest-timeout

# The cross build: this machine's Python runs setup.py with the build settings of ARM's.
mkdir -p "$BUILD/settings"
cp "$ROOT/usr/lib/python$version/_sysconfigdata__aarch64-linux-gnu.py" "$BUILD/settings/"
headers="-I$ROOT/usr/include/python$version -I$ROOT/usr/include"
env _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu _PYTHON_HOST_PLATFORM=linux-aarch64 \
    PYTHONPATH="$BUILD/settings" CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" CFLAGS="$headers" \
    "$PYTHON" setup.py --quiet build --build-base "$BUILD/build" --build-lib "$BUILD/lib"

# Child processes of the tests start this script in place of a program that this machine cannot run itself.
cat >"$BUILD/python" <<END
#!/bin/sh
exec qemu-aarch64 -L "$ROOT" -E LC_ALL=C.UTF-8 "$ROOT/usr/bin/python$version" "\$@"
END
chmod +x "$BUILD/python"
echo "import sys; sys.executable = '$BUILD/python'" >"$SITE/emulated.pth"

export OBJDUMP=aarch64-linux-gnu-objdump
export PYTHONPATH="$BUILD/lib:$PWD/tests" PYTHONDONTWRITEBYTECODE=1
export FASTCONV_TEST_CASES=${FASTCONV_TEST_CASES:-200}
[ $# -gt 0 ] || set -- "${DEFAULT_TESTS[@]}"
exec "$BUILD/python" -P -m pytest -p no:cacheprovider "$@"
