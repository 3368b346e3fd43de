"""`fastconv quantize`: models of floats written as models of 8 bits, which every runtime reads."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import model  # noqa: E402

from fastconv import cli  # noqa: E402
from fastconv.onnx import InferenceSession  # noqa: E402

make = onnx.helper.make_node


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net with all that is written in another form than it had: normalisations with and without a convolution before
    them, spelled functions, a depthwise convolution, a sum, a mean; and samples with their classes."""
    made, rng = tmp_path_factory.mktemp("nets"), np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    constants = {
        "w1": draw(8, 3, 3, 3) / 5, "w2": draw(8, 1, 3, 3) / 3, "w3": draw(8, 8, 1, 1) / 3,
        "fc": draw(8, 4), "b": draw(4), "scale": draw(8), "shift": draw(8), "mean": draw(8),
        "variance": np.abs(draw(8)) + 0.5,
    }  # fmt: skip
    norm = ["scale", "shift", "mean", "variance"]
    nodes = [
        make("Conv", ["x", "w1"], ["a"], "one", pads=[1] * 4, strides=[2, 2]),
        make("BatchNormalization", ["a", *norm], ["b1"]), make("Relu", ["b1"], ["r"]),
        make("Conv", ["r", "w2"], ["d"], group=8, pads=[1] * 4), make("Sigmoid", ["d"], ["s"]),
        make("Mul", ["d", "s"], ["silu"]), make("Conv", ["silu", "w3"], ["e"]), make("Add", ["e", "r"], ["sum"]),
        make("MaxPool", ["sum"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        make("BatchNormalization", ["m", *norm], ["n"]), make("GlobalAveragePool", ["n"], ["g"]),
        make("Flatten", ["g"], ["f"]), make("Gemm", ["f", "fc", "b"], ["y"]),
    ]  # fmt: skip
    net = model(onnx, nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 4]}, constants, 19)
    onnx.save(net, made / "net.onnx")
    x = draw(12, 3, 16, 16)
    np.save(made / "x.npy", x)
    np.save(made / "labels.npy", InferenceSession(net).run(None, {"x": x})[0].argmax(1))
    return made


def quantize(folder, *words):
    return cli.main(["quantize", str(folder / "net.onnx"), str(folder / "out.onnx"), *map(str, words)])


@pytest.mark.parametrize("method", ["percentile", "minmax"])
def test_what_is_written_is_what_was_reported(folder, capsys, method):
    words = ["--calibration", folder / "x.npy", "--method", method, "--labels", folder / "labels.npy", "--json"]
    assert quantize(folder, *words) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["samples"] == 12 and about["float_accuracy"] == 1 and about["accuracy"] >= 0.9
    assert min(layer["sqnr"] for layer in about["layers"]) > 20
    written = onnx.load(folder / "out.onnx")
    onnx.checker.check_model(written, full_check=True)
    kinds = [node.op_type for node in written.graph.node]
    assert kinds.count("DequantizeLinear") > kinds.count("QuantizeLinear") > 4
    assert not any(node.domain for node in written.graph.node)
    x = np.load(folder / "x.npy")
    wanted = InferenceSession(str(folder / "net.onnx")).run(None, {"x": x})[0]
    ours = InferenceSession(str(folder / "out.onnx")).run(None, {"x": x})[0]
    theirs = ReferenceEvaluator(written).run(None, {"x": x})[0]
    step = np.abs(wanted).max() / 255
    assert np.abs(ours - theirs).max() < 3 * step and np.abs(ours - wanted).max() < 0.1 * np.abs(wanted).max()
    kinds = [(tensor.data_type, len(tensor.dims)) for tensor in written.graph.initializer]
    assert kinds.count((onnx.TensorProto.INT8, 4)) == 3


def test_the_report_is_a_table(folder, capsys):
    assert quantize(folder, "--calibration", folder / "x.npy", "--samples", 5) == 0
    said = capsys.readouterr().out
    assert "SQNR dB" in said and "5 samples" in said and "of floats" in said and "Conv" in said


def test_pictures_of_a_folder(folder, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for at in range(3):
        pixels = np.random.default_rng(at).integers(0, 256, (20, 24, 3), np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{at}.png")
    assert quantize(folder, "--calibration", tmp_path, "--mean", "0.5", "--std", "0.25") == 0
    assert "3 samples" in capsys.readouterr().out


def test_refusals(folder, tmp_path, capsys):
    np.save(tmp_path / "flat.npy", np.zeros((4, 3, 16, 16), np.float32))
    np.save(tmp_path / "one.npy", np.zeros(1, np.int64))
    (tmp_path / "empty").mkdir()
    good = folder / "x.npy"
    for name, label in (("four", 4), ("minus", -1)):
        np.save(tmp_path / f"{name}.npy", np.where(np.arange(12) == 7, label, 0))
    for words, text in (
        (["--calibration", tmp_path / "nowhere"], "no folder"), (["--calibration", tmp_path / "empty"], "no pictures"),
        (["--calibration", tmp_path / "flat.npy"], "all values are 0"),
        (["--calibration", tmp_path / "one.npy"], "shape"),
        (["--calibration", good, "--labels", tmp_path / "one.npy"], "12 integers"),
        (["--calibration", good, "--samples", 2, "--labels", tmp_path / "four.npy"], "classes from 0 to 3"),
        (["--calibration", good, "--labels", tmp_path / "minus.npy"], "from -1 to 0"),
    ):  # fmt: skip
        (folder / "out.onnx").unlink(missing_ok=True)
        assert quantize(folder, *words) == 1 and not (folder / "out.onnx").exists()
        assert text in capsys.readouterr().err
    assert quantize(folder, "--calibration", good) == 0
    capsys.readouterr()
    words = ["quantize", str(folder / "out.onnx"), str(tmp_path / "again.onnx"), "--calibration", str(good)]
    assert cli.main(words) == 1 and "quantised already" in capsys.readouterr().err
