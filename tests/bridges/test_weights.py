"""fastconv.weights: layouts and order of PyTorch's and Keras' files, the report, and files that are not what they say.

tests/data/keras holds files that Keras 3.15 saved; others are built here with h5py, in the layouts that its
documentation and its reader describe. tests/corpus/weights holds small files that the byte flips start from, and those
that must be refused.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import files

from fastconv import ConvError, ConvTypeError, layers, reference
from fastconv.models import Sequential, mnist_net, resnet, wide_resnet_cifar
from fastconv.weights import keras, load_weights, read_weights

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parents[1] / "corpus" / "weights"
MOST_BYTES = 8 << 20  # that reading a small file may allocate, whatever it claims
FLIPS = 150


def small_net(seed: int, classes: int = 5, **options: Any) -> Sequential:
    """Every kind of layer that has weights."""
    return Sequential(
        [
            layers.Conv2D(6, 3, padding="same", name="first", **options),
            layers.BatchNormalization(name="norm"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="depth"),
            layers.SeparableConv2D(4, 3, activation="relu", name="separable"),
            layers.Conv2DTranspose(3, 3, 2, name="up"),
            layers.Conv2D(4, 3, 2, use_bias=False, name="last"),
            layers.Flatten(name="flat"),
            layers.Dense(7, activation="relu", name="hidden"),
            layers.Dense(classes, name="scores"),
        ],
        (12, 11, 3),
        seed=seed,
    )


def drawn(model: Sequential) -> Sequential:
    """The model with every weight drawn, normalisation included."""
    random = np.random.default_rng(9)
    for parameter in model.parameters():
        parameter.assign(random.uniform(0.2, 1.0, parameter.shape).astype(np.float32))
    return model


def same_answers(a: Sequential, b: Sequential) -> None:
    assert a.built_shape is not None
    x = np.random.default_rng(1).standard_normal((2, *a.built_shape), np.float32)
    np.testing.assert_array_equal(a.forward(x), b.forward(x))


# ---- safetensors ---------------------------------------------------------------------------------------------------

TYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}


def safetensors(header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensors_file(tensors: dict[str, Any]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    return safetensors(header, data)


def as_pytorch(model: Sequential) -> dict[str, Any]:
    """The weights under PyTorch's names and axes."""
    found: dict[str, Any] = {}
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    image = None
    for layer, before, _ in model.shapes(model.built_shape or ()):
        image = before if isinstance(layer, layers.Flatten) else image
        for path, parameter in layer.named_parameters():
            owner, _, role = path.rpartition("/")
            array = parameter.array
            if role == "depthwise_kernel":
                array = array.reshape(*array.shape[:2], 1, -1)
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            if array.ndim == 2:
                if image is not None:
                    array = array.reshape(*image, -1).transpose(2, 0, 1, 3).reshape(array.shape)
                    image = None
                array = array.T
            kind = "weight" if "kernel" in role else names.get(role, role)
            found[f"net.{owner.replace('/', '.')}.{kind}"] = array
        if isinstance(layer, layers.BatchNormalization):
            found[f"net.{layer.name}.num_batches_tracked"] = np.array(3, np.int64)
    return found


def test_pytorch_names_axes_and_order_behind_flatten(tmp_path: Path) -> None:
    donor, model = drawn(small_net(0)), small_net(1)
    path = tmp_path / "w.safetensors"
    path.write_bytes(tensors_file(as_pytorch(donor)))
    report = load_weights(model, path)
    assert report.complete and len(report.loaded) == len(model.parameters())
    assert ("norm/moving_variance", "net.norm (moving_variance)") in report.loaded
    assert "arrays loaded" in str(report) and "first/kernel" in str(report)
    same_answers(model, donor)


def test_a_dense_layer_behind_flatten_is_pytorchs(tmp_path: Path) -> None:
    """Said without our own conversion: PyTorch's net on NCHW, by the reference, is ours on NHWC."""
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 5, 4, 3), np.float32)
    conv, dense = random.standard_normal((6, 3, 3, 3), np.float32), random.standard_normal((7, 6 * 5 * 4), np.float32)
    bias = random.standard_normal(7, np.float32)
    model = Sequential(
        [layers.Conv2D(6, 3, padding="same", use_bias=False), layers.Flatten(), layers.Dense(7)], (5, 4, 3)
    )
    path = tmp_path / "w.safetensors"
    path.write_bytes(tensors_file({"0.weight": conv, "2.weight": dense, "2.bias": bias}))
    load_weights(model, path)
    maps = reference.conv2d(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), conv, padding=1)
    np.testing.assert_allclose(model.forward(x), maps.reshape(2, -1) @ dense.T + bias, rtol=1e-4, atol=1e-4)


def test_half_and_brain_floats(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0, 0.0, 3.25], np.float32)
    path = tmp_path / "w.safetensors"
    words = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header = {
        "a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
    }
    path.write_bytes(safetensors(header, values.astype(np.float16).tobytes() + words))
    found = read_weights(path)
    assert list(found) == ["a", "b"] and found["a"].dtype == np.float32 and found["b"].dtype == np.float16
    np.testing.assert_array_equal(found["a"], values.reshape(2, 2))
    np.testing.assert_array_equal(found["b"], values)


def test_what_safetensors_writes(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    arrays = {"x": np.arange(6.0).reshape(2, 3), "y": np.ones(3, np.int8), "empty": np.empty((0, 4), np.float32)}
    package.save_file(arrays, str(tmp_path / "w.safetensors"))
    found = read_weights(tmp_path / "w.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_our_own_files(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    donor, model = drawn(small_net(0)), small_net(1)
    donor.save(tmp_path / "w.safetensors")
    assert load_weights(model, tmp_path / "w.safetensors").complete
    same_answers(model, donor)


@pytest.mark.parametrize(
    "model", [lambda seed: mnist_net(seed=seed), lambda seed: wide_resnet_cifar(10, 1, seed=seed),
              lambda seed: resnet(18, 10, (64, 64, 3), seed=seed)], ids=["mnist", "wrn", "resnet18"]
)  # fmt: skip
def test_nets_through_pytorch(model: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from fastconv.bench.graph import torch_net

    donor, fresh = drawn(model(0)), model(1)
    net = torch_net(donor.layers, donor.built_shape)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    assert load_weights(fresh, tmp_path / "w.pth").complete
    for ours, theirs in zip(fresh.parameters(), donor.parameters(), strict=True):
        np.testing.assert_array_equal(ours.array, theirs.array)


# ---- Keras ---------------------------------------------------------------------------------------------------------


def keras_2(file: Any, model: Sequential, colon: str = ":0") -> None:
    """The layout with layer_names and weight_names."""
    file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
    file.attrs["keras_version"], file.attrs["backend"] = b"2.15.0", b"tensorflow"
    for layer in model.layers:
        group, names = file.create_group(layer.name), []
        for path, parameter in layer.named_parameters():
            role = path.rpartition("/")[2]
            if "/pointwise/kernel" in path:
                role = "pointwise_kernel"
            names.append(f"{layer.name}/{role}{colon}".encode())
            group.create_dataset(names[-1].decode(), data=parameter.array)
        group.attrs["weight_names"] = names


CLASSES = {
    "Conv2D": "conv2d",
    "Conv2DTranspose": "conv2d_transpose",
    "DepthwiseConv2D": "depthwise_conv2d",
    "SeparableConv2D": "separable_conv2d",
    "BatchNormalization": "batch_normalization",
    "Dense": "dense",
}


def keras_3(file: Any, model: Sequential) -> None:
    """The layout with `vars` in a group for each layer, counted by class; layers without weights have one too."""
    counts: dict[str, int] = {}
    for layer in model.layers:
        kind = CLASSES.get(type(layer).__name__, type(layer).__name__.lower())
        number = counts[kind] = counts.get(kind, -1) + 1
        group = file.create_group(f"layers/{kind}_{number}" if number else f"layers/{kind}").create_group("vars")
        for i, (_, parameter) in enumerate(layer.named_parameters()):
            group.create_dataset(str(i), data=parameter.array)
    file.create_group("optimizer/vars").create_dataset("0", data=np.int64(7))


def keras_archive(model: Sequential, compression: int = zipfile.ZIP_STORED) -> bytes:
    h5py = pytest.importorskip("h5py")
    inner, outer = io.BytesIO(), io.BytesIO()
    with h5py.File(inner, "w") as file:
        keras_3(file, model)
    listed = [{"class_name": "InputLayer", "config": {"name": "input"}}]
    listed += [{"class_name": type(layer).__name__, "config": {"name": layer.name}} for layer in model.layers]
    with zipfile.ZipFile(outer, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": listed}}))
        archive.writestr("model.weights.h5", inner.getvalue())
    return outer.getvalue()


@pytest.mark.parametrize("form", ["keras 2", "keras 2 model", "keras 3 legacy", "weights.h5", "keras"])
def test_keras(form: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    donor, model = drawn(small_net(0)), small_net(1)
    path = tmp_path / {"weights.h5": "w.weights.h5", "keras": "w.keras"}.get(form, "w.h5")
    if form == "keras":
        path.write_bytes(keras_archive(donor))
    else:
        with h5py.File(path, "w") as file:
            if form == "weights.h5":
                keras_3(file, donor)
            else:
                root = file.create_group("model_weights") if form == "keras 2 model" else file
                keras_2(root, donor, "" if form == "keras 3 legacy" else ":0")
    report = load_weights(model, path)
    assert report.complete and len(report.loaded) == len(model.parameters())
    same_answers(model, donor)
    assert len(read_weights(path)) == len(model.parameters())


# What Keras 3.15 (with PyTorch below it) predicts with the weights in tests/data/keras, which are uniform in +-0.5
# (variances 0.2 to 1), for np.random.default_rng(1).standard_normal((2, 12, 11, 3)).astype("float32").
KERAS_ANSWER = [
    [0.32954502, 0.03660915, 0.13787888, 0.27345598, 0.22251104],
    [0.33972856, 0.03375746, 0.13613307, 0.26601544, 0.22436555],
]  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("file", ["net.weights.h5", "model.keras", "model.h5"])
def test_files_that_keras_saved(file: str, named: bool) -> None:
    pytest.importorskip("h5py")
    names = iter(
        ["first", "second", "norm", "pool", "depth", "separable", "up", "last", "flat", "hidden", "drop", "scores"]
    )

    def name() -> dict[str, str]:
        return {"name": next(names)} if named else {}

    model = Sequential(
        [
            layers.Conv2D(6, 3, padding="same", activation="relu", **name()),
            layers.Conv2D(6, 3, padding="same", activation="relu", **name()),
            layers.BatchNormalization(epsilon=1e-3, **name()),
            layers.MaxPooling2D(**name()),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", **name()),
            layers.SeparableConv2D(4, 3, padding="same", activation="relu", **name()),
            layers.Conv2DTranspose(3, 3, 2, **name()),
            layers.Conv2D(4, 3, 2, use_bias=False, **name()),
            layers.Flatten(**name()),
            layers.Dense(7, activation="relu", **name()),
            layers.Dropout(0.5, **name()),
            layers.Dense(5, activation="softmax", **name()),
        ],
        (12, 11, 3),
        seed=3,
    )
    report = load_weights(model, Path(__file__).parents[1] / "data" / "keras" / file)
    assert report.complete and len(report.loaded) == len(model.parameters())
    assert any("separable" in theirs for _, theirs in report.loaded)
    x = np.random.default_rng(1).standard_normal((2, 12, 11, 3)).astype(np.float32)
    np.testing.assert_allclose(model.forward(x), KERAS_ANSWER, rtol=1e-4, atol=1e-6)


def test_many_layers_of_a_class_keep_their_order(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")

    def deep(seed: int) -> Sequential:
        return Sequential([layers.Conv2D(4, 3, padding="same") for _ in range(12)], (6, 6, 4), seed=seed)

    donor, model = drawn(deep(0)), deep(1)
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        keras_3(file, donor)  # groups in the order conv2d, conv2d_1, conv2d_10, conv2d_11, conv2d_2, ...
    load_weights(model, tmp_path / "w.weights.h5")
    same_answers(model, donor)


# ---- the report ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_what_does_not_match_is_reported(named: bool, tmp_path: Path) -> None:
    donor, model = drawn(small_net(0)), small_net(1, classes=9)
    tensors = as_pytorch(donor)
    if named:
        tensors = {name.removeprefix("net."): array for name, array in tensors.items()}
    path = tmp_path / "w.safetensors"
    path.write_bytes(tensors_file(tensors))
    before = model.get_weights()
    told = r"[12] of the model's missing.*\n(.*\n)*.*scores.*\(7, 9\).*\(7, 5\)"
    with pytest.raises(ConvError, match=told) as error:
        load_weights(model, path)
    assert "strict=False" in str(error.value)
    for ours, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)
    report = load_weights(model, path, strict=False)
    assert not report.complete and report.missing and any("scores" in name for name in report.missing)
    assert "scores" in str(report) and "missing in the file" in str(report)
    for ours, theirs in zip(*(net.get_layer("hidden").get_weights() for net in (model, donor)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_left_over_layers_and_wrong_types(tmp_path: Path) -> None:
    model = Sequential([layers.Dense(3, name="a")], (4,))
    path = tmp_path / "w.safetensors"
    bias = np.ones(3, np.float32)
    path.write_bytes(tensors_file({"a.weight": np.ones((3, 4), np.float32), "a.bias": bias, "b.weight": bias}))
    with pytest.raises(ConvError, match=r"not in the model: b: kernel \(3,\)"):
        load_weights(model, path)
    path.write_bytes(tensors_file({"a.weight": np.ones((3, 4), np.int64), "a.bias": np.ones(3, np.float32)}))
    with pytest.raises(ConvError, match="int64"):
        load_weights(model, path)


def test_bad_arguments(tmp_path: Path) -> None:
    model = mnist_net()
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "none.pth")
    with pytest.raises(ConvError, match=r"\.safetensors"):
        load_weights(model, tmp_path / "w.npy")
    with pytest.raises(ConvTypeError, match="path"):
        load_weights(model, 5)  # type: ignore[arg-type]
    with pytest.raises(ConvTypeError, match="Sequential"):
        load_weights(np.ones(3), tmp_path / "w.pth")  # type: ignore[arg-type]


def test_without_h5py_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(ImportError, match=r"pip install fastconv\[keras\]"):
        read_weights(tmp_path / "w.h5")


# ---- files that are not what they say ------------------------------------------------------------------------------

F32 = {"dtype": "F32"}
DAMAGED = {
    "nothing": b"",
    "short": b"\0\0\0",
    "long header": safetensors(b"{}", b"", 1 << 62),
    "no json": safetensors(b"{nothing", b""),
    "nested": safetensors(b"[" * 100_000, b""),
    "a list": safetensors(b"[1]", b""),
    "twice": safetensors(b'{"a":{},"a":{}}', b""),
    "no entry": safetensors({"a": 3}, b""),
    "huge": safetensors({"a": {**F32, "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}}, b"1234"),
    "overflow": safetensors({"a": {**F32, "shape": [1 << 62, 4], "data_offsets": [0, 0]}}, b""),
    "negative": safetensors({"a": {**F32, "shape": [-1], "data_offsets": [0, -4]}}, b""),
    "floats": safetensors({"a": {**F32, "shape": [1.0], "data_offsets": [0, 4]}}, b"1234"),
    "other type": safetensors({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"1234"),
    "overlap": safetensors({n: {**F32, "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"1234"),
    "hole": safetensors({"a": {**F32, "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
    "rest": safetensors({"a": {**F32, "shape": [1], "data_offsets": [0, 4]}}, b"12345678"),
}


def refused(path: Path) -> None:
    """The file raises `ConvError` and has not made anybody allocate what it claims."""
    tracemalloc.start()
    try:
        with pytest.raises(ConvError, match=path.name.replace(".", r"\.")):
            read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_safetensors(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(DAMAGED[name])
    refused(path)


def test_pickles_that_claim_much(tmp_path: Path) -> None:
    begin = b"\x80\x02"
    cases = {
        "object number": begin + b"}r\xff\xff\xff\x7f.",
        "object number in digits": begin + b"}p2147483647\n.",
        "long text": begin + b"X\xff\xff\xff\x7fabc.",
        "longer text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",
        "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
        "long integer": begin + b"\x8b\xff\xff\xff\x7fabc.",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.",
        "nested": begin + b"(" * 50_000 + b".",
    }
    for name, data in cases.items():
        stream, packed = (tmp_path / f"{name} {form}.pth" for form in ("stream", "archive"))
        stream.write_bytes(data)
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("net/data.pkl", data)
        refused(stream)
        refused(packed)


def test_archives_that_grow(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\0" * (1 << 24))
    refused(path)


def test_hdf5_that_claims_much_or_points_elsewhere(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file.create_group("vars").create_dataset("0", data=np.ones((3, 3)))

    def chunked(group: Any) -> None:
        group.create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(16, 16))

    def packed(group: Any) -> None:
        group.create_dataset("0", data=np.zeros((1 << 10, 1 << 10), "f4"), compression="gzip")

    def soft(group: Any) -> None:
        group["0"] = h5py.SoftLink("/layers")

    def external(group: Any) -> None:
        group["0"] = h5py.ExternalLink(str(secret), "/vars/0")

    def outside(group: Any) -> None:
        group.create_dataset("0", (4,), "u1", external=[(str(secret), 0, 4)])

    def virtual(group: Any) -> None:
        layout = h5py.VirtualLayout((3, 3), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "/vars/0", (3, 3))
        group.create_virtual_dataset("0", layout)

    def text(group: Any) -> None:
        group.create_dataset("0", data=[b"abc", b"d"])

    def loop(group: Any) -> None:
        group["again"] = group.parent  # a hard link to a group above

    for write in (chunked, packed, soft, external, outside, virtual, text, loop):
        path = tmp_path / "w.weights.h5"
        with h5py.File(path, "w") as file:
            write(file.create_group("layers/dense/vars"))
        refused(path)
    path = tmp_path / "w.keras"
    path.write_bytes(keras_archive(small_net(0), zipfile.ZIP_DEFLATED))
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    refused(path)


# ---- byte flips ----------------------------------------------------------------------------------------------------

def seeds() -> list[Path]:
    return sorted(path for path in CORPUS.glob("good-*"))


@pytest.mark.parametrize("path", seeds(), ids=lambda path: path.name)
def test_flipped_bytes_are_read_or_refused(path: Path, tmp_path: Path) -> None:
    """In a process of its own, so that a crash of a library would be seen, and with 4 GiB of address space."""
    if path.suffix in (".h5", ".keras"):
        pytest.importorskip("h5py")
    assert read_weights(path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fuzz.files", str(path), os.environ.get("FASTCONV_FLIPS", str(FLIPS)), "0",
         str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=900,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    read, refused_count = map(int, done.stdout.split()[-2:])
    assert read and refused_count


@pytest.mark.parametrize("path", sorted(CORPUS.glob("bad-*")), ids=lambda path: path.name)
def test_the_corpus_is_refused(path: Path) -> None:
    if path.suffix in (".h5", ".keras"):
        pytest.importorskip("h5py")
    refused(path)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*-libhdf5.h5")), ids=lambda path: path.name)
def test_a_file_that_crashes_or_holds_up_the_library_is_refused(path: Path) -> None:
    pytest.importorskip("h5py")
    files.read(path)  # other versions of the library may live, and read it


def test_the_process_that_reads_hdf5_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    for path in (path for path in seeds() if path.suffix in (".h5", ".keras")):
        with keras.opened(path) as apart, keras.opened_here(path) as here:
            assert (apart.before, apart.nested, apart.notes) == (here.before, here.nested, here.notes)
            assert len(apart.layers) == len(here.layers) > 0
            for ours, theirs in zip(apart.layers, here.layers, strict=True):
                assert (ours.name, ours.kind, ours.place) == (theirs.name, theirs.kind, theirs.place)
                assert list(ours.arrays) == list(theirs.arrays)
                for role, stored in theirs.arrays.items():
                    array = ours.arrays[role].read()
                    np.testing.assert_array_equal(array, stored.read(), strict=True)
                    assert array.flags.writeable and (array.shape, array.dtype) == (stored.shape, stored.dtype)
    monkeypatch.setattr(sys, "executable", "")  # as in a program that embeds the interpreter
    with keras.opened(path) as here:
        assert here.layers


def test_the_corpus_is_there() -> None:
    assert {path.suffix for path in seeds()} == {".pth", ".safetensors", ".h5", ".keras"}
    assert list(CORPUS.glob("bad-*"))
