"""What people hand to the command line: pictures of every kind, files that are not what they say, closed streams."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from reliability.board import Outcome, row

NEEDED = {"PIL": "Pillow", "onnx": "onnx"}
SAME = "same.onnx"  # a model that hands a picture on


def missing() -> str:
    """Why a row cannot run here."""
    absent = [name for module, name in NEEDED.items() if find_spec(module) is None]
    return f"needs {' and '.join(absent)}: pip install fastconv[onnx]" if absent else ""


@row(
    "pictures: every mode and format, palettes, 16 bits, transparency, turned, moving; and damaged ones",
    "read as they look, or refused by name", quick=300, full=20_000, order=570,
)  # fmt: skip
def pictures(count: int) -> Outcome:
    """Each kind against levels worked out by hand; then bytes of these files flipped, cut off and repeated."""
    outcome = Outcome(skipped=missing())
    if outcome.skipped:
        return outcome
    import made_pictures

    from fastconv.cli.common import CommandError
    from fastconv.cli.pictures import open_picture

    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        kinds = list(made_pictures.made(Path(folder)))
        for kind in kinds:
            wrong = made_pictures.difference(kind)
            outcome.check(not wrong, f"{kind.path.name}: {wrong}")
        for seed in range(count):
            kind = kinds[seed % len(kinds)]
            path = Path(folder, "damaged" + kind.path.suffix)
            path.write_bytes(damaged(kind.path.read_bytes(), random.Random(seed)))
            try:
                open_picture(path, (1, 3)[seed % 2])
                outcome.check(True, "")
            except CommandError as error:
                refused += 1
                outcome.check("\n" not in str(error), f"{kind.path.name}, seed {seed}: {error}")
            except Exception as error:
                outcome.check(False, f"{kind.path.name}, seed {seed}: {type(error).__name__}: {error}")
    outcome.measured = f"{len(kinds)} kinds; of {count:,} damaged files {refused:,} refused"
    return outcome


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a file with a few mistakes, the head as likely as all the rest."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(min(64, len(changed)) if chance.random() < 0.5 else len(changed))
        changed[at] = chance.randrange(256)
    if chance.random() < 0.3:
        del changed[chance.randrange(len(changed)) :]
    return bytes(changed)


# Words of a command line, and a word of the line that it must print. Paths lie in the folder of the case.
REFUSED: tuple[tuple[str, str], ...] = (
    ("", "COMMAND"), ("bake", "bake"), ("info --jsn", "--jsn"), ("check --cases many", "many"),
    ("info --json absent/x.json", "absent"), ("info --json folder", "folder"), ("check --json absent/x.json", "absent"),
    ("summary vgg16 --json absent/x.json", "absent"), ("bench --json absent/x.json", "absent"),
    ("bench --plot absent/x.png", "absent"), ("bench --only nothing", "nothing"),
    ("demo --json absent/x.json", "absent"),
    ("check --isa abacus", "abacus"), ("check --threads 2", "--threads"), ("summary nothing", "nothing"),
    ("summary absent.onnx", "absent.onnx"), ("summary folder", "folder"), ("summary text.onnx", "ONNX"),
    ("summary vgg16 --input-size 1", "kernel_size"), ("summary vgg16 --classes 0", "--classes"),
    ("completion tcsh", "tcsh"), ("run", "MODEL"), ("run same.onnx", "IMAGE"),
    ("run absent.onnx x.png", "absent.onnx"), ("run text.onnx x.png", "ONNX"), ("run half.onnx x.png", "ONNX"),
    ("run folder x.png", "folder"), ("run empty.onnx x.png", "ONNX"),
    ("run same.onnx absent.png", "absent.png"), ("run same.onnx folder", "folder"),
    ("run same.onnx text.png", "text.png"), ("run same.onnx half.png", "half.png"),
    ("run same.onnx huge.png", "too large"), ("run same.onnx real.tif", "floating-point"),
    ("run same.onnx absent.npy", "absent.npy"), ("run same.onnx text.npy", "text.npy"),
    ("run same.onnx many.npy", "many.npy"), ("run same.onnx shape.npy", "shape"),
    ("run same.onnx x.png --labels latin.txt", "UTF-8"), ("run same.onnx x.png --labels absent.txt", "absent.txt"),
    ("run same.onnx x.png --labels folder", "folder"), ("run same.onnx x.png --size 9", "[1, 3, 9, 9]"),
    ("run same.onnx x.png --save absent/y.png", "absent"), ("run same.onnx x.png --save folder", "folder"),
    ("run same.onnx x.png --save y.nothing", "y.nothing"), ("run same.onnx x.png --json absent/y.json", "absent"),
    ("run same.onnx x.png --mean some", "--mean"), ("run same.onnx x.png --threads 0", "--threads"),
)  # fmt: skip
# Redirections of a shell, and the status with them; standard error stays empty where it is 0 or nobody reads on.
STREAMS: tuple[tuple[str, int, str], ...] = (
    ("info --help >&-", 1, "standard output is closed"),
    ("info 2>&- >/dev/null", 0, ""), ("bake 2>&-", 2, ""), ("info >/dev/full", 1, "No space left"),
    ("info --json /dev/full", 1, "No space left"),
    ("info | true", 1, ""), ("--help | true", 0, ""),
)  # fmt: skip


@row(
    "command lines that cannot work: files, folders, names, sizes, closed and full streams",
    "one line, its status, no traceback", quick=1, full=1, order=580,
)  # fmt: skip
def command_line(count: int) -> Outcome:
    """Every line once, in both tiers."""
    outcome = Outcome(skipped=missing())
    if outcome.skipped:
        return outcome
    from fastconv import cli

    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        os.chdir(folder)
        try:
            for words, said in REFUSED:
                out, err = io.StringIO(), io.StringIO()
                try:
                    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                        status: Any = cli.main(words.split())
                except Exception as error:
                    status = f"{type(error).__name__}: {error}"
                line = err.getvalue()
                right = status in (1, 2) and line.count("\n") == 1 and said in line
                outcome.check(right, f"fastconv {words}: {status}, {line!r}")
            for words, wanted, said in STREAMS:
                if "/dev/full" not in words or Path("/dev/full").exists():
                    status, line = in_a_shell(words)
                    right = status == wanted and said in line and line.count("\n") == bool(said)
                    outcome.check(right, f"fastconv {words}: {status}, {line!r}")
        finally:
            os.chdir(before)
    return outcome


def in_a_shell(words: str) -> tuple[int, str]:
    """The status of fastconv itself, whatever stands behind a pipe, and what it said on standard error."""
    import fastconv

    path = os.pathsep.join([str(Path(fastconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    program = f"'{sys.executable}' -P -m fastconv"
    command, pipe, behind = words.partition("|")
    script = f"{{ {program} {command}; echo $? >status; }}" + (f" | {behind}" if pipe else "")
    done = subprocess.run(
        ["sh", "-c", script], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=100
    )
    return int(Path("status").read_text()), done.stderr


def write_files(folder: Path) -> None:
    """What the lines speak of."""
    import onnx
    from made_pictures import RGB, png_of
    from onnx_models import model
    from PIL import Image

    same = model(onnx, [onnx.helper.make_node("Identity", ["x"], ["y"])], {"x": [1, 3, 8, 8]}, {"y": None})
    data = same.SerializeToString()
    Image.fromarray(RGB).save(folder / "x.png")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "real.tif")
    png_of(folder / "huge.png", 20_000, 20_000, 8, 2, b"")
    (folder / "folder").mkdir()
    for name, content in {
        SAME: data, "half.onnx": data[: len(data) // 2], "empty.onnx": b"", "text.onnx": b"no model",
        "text.png": b"no picture", "half.png": (folder / "x.png").read_bytes()[:200], "text.npy": b"no array",
        "latin.txt": b"caf\xe9\n",
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    np.save(folder / "shape.npy", np.zeros((2, 2), np.float32))
    with open(folder / "many.npy", "wb") as file:
        np.savez(file, a=np.zeros(3))
