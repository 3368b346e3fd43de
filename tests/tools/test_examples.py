"""Every example runs, prints the numbers that it is about, and saves a picture."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastconv

EXAMPLES = Path(__file__).parents[2] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"
# What each must print, and the package besides matplotlib whose data it reads.
PRINTED = {
    "bottleneck": (["69,632", "73,728", "1,179,648"], None),
    "dense_or_convolution": (["669,706", "33,338", "digits moved right by"], "mlxtend"),
    "kinds_of_convolution": (["(b) tiled convolution", "(d) transposed convolution", "97 x 97"], "skimage"),
    "other_sizes": (["the same ones", "88 x 160", "16 x 34"], "mlxtend"),
    "pitch": (["of 400 frames", "have the bits of the whole recording", "a step of 20 ms"], None),
    "padding": (["VALID", "10 x 10", "118 x 193"], "skimage"),
    "richardson_lucy": (["101 x 101", "668,532,736", "Fourier transforms of tiles"], None),
    "small_kernels": (["18", "25", "27", "49", "5 x 5", "7 x 7"], None),
    "stride_or_pooling": (["max pooling", "stride 2", "7,369,600", "1,950,592"], "mlxtend"),
    "unet": (["65,799", "31,518,720", "conv2d_transpose_1, conv2d_1", "by tiles of 64"], None),
    "volume": (["conv3d_transpose_1, conv3d_1", "32 x 64 x 64 voxels by tiles of 32", "lump"], None),
    "width_or_depth": (["68,883,240", "11,398,021,120", "60,192,808", "11,513,626,624"], None),
}


def run(example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The example in a process of its own, with the fastconv under test."""
    path = os.pathsep.join(filter(None, [str(Path(fastconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{example}.py"), *arguments], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def test_every_example_is_tested():
    elsewhere = {
        "mobilenet": "test_pretrained.py",
        "dask_zarr": "a store of two gigabytes",
        "keras_lecture": "test_keras.py",
        "run_onnx": "test_onnx.py",
        "train_ddp": "test_torch.py",
    }
    assert sorted([*PRINTED, *elsewhere]) == sorted(path.stem for path in EXAMPLES.glob("[a-z]*.py"))


@pytest.mark.parametrize("example", PRINTED)
def test_the_example_runs(example, tmp_path):
    wanted, data = PRINTED[example]
    for package in filter(None, ("matplotlib", data)):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install fastconv[demo]")
    done = run(example, "--quick", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [text for text in wanted if text not in done.stdout] == []
    picture = (tmp_path / f"{example}.png").read_bytes()
    assert picture.startswith(PNG) and len(picture) > 20_000
    assert [path.name for path in tmp_path.iterdir()] == [f"{example}.png"]


def test_what_is_missing_is_said_in_one_line(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "bottleneck.py"), "--output", str(tmp_path)], capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(fastconv.__file__).parents[1]}"},
    )  # fmt: skip
    assert done.returncode == 1 and "fastconv[demo]" in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
