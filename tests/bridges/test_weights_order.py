"""Which layer of a file is which of the model: numbers are numbers, words are none, and a guess is not complete.

Donors have the names of PyTorch's modules; every case is written in each way in which such files come about. PyTorch is
not needed: the right weights are the donor's own.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_weights import drawn, same_answers, tensors_file
from test_weights_pytorch import archive, stream, tensor

from fastconv import ConvError, layers
from fastconv.models import Sequential
from fastconv.weights import load_weights, read_weights
from fastconv.weights.source import step

TENSORS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
           "moving_variance": "running_var"}  # fmt: skip
MADE = ("made", "old", "plain", "prefixed")
SORTED = ("sorted", "reversed", "shuffled", "safetensors", "prefixed safetensors")


def conv(filters: int = 4, kernel: int = 3, **options: Any) -> layers.Layer:
    return layers.Conv2D(filters, kernel, padding="same", **options)


def norm() -> layers.Layer:
    return layers.BatchNormalization()


def convs(count: int) -> list[layers.Layer]:
    return [conv() for _ in range(count)]


def block(filters: int) -> list[layers.Layer]:
    """A basic block of ResNet with a convolution on its shortcut."""
    body = [conv(filters, use_bias=False), norm(), layers.ReLU(), conv(filters, use_bias=False), norm()]
    return [layers.Residual(body, [conv(filters, 1, use_bias=False), norm()], activation="relu")]


def bottleneck(filters: int) -> list[layers.Layer]:
    body = [conv(filters, 1), norm(), conv(filters), norm(), conv(4 * filters, 1), norm()]
    return [layers.Residual(body, [conv(4 * filters, 1), norm()])]


def heads(width: int) -> list[layers.Layer]:
    return [conv(width), *[conv(width) for _ in range(11)], layers.GlobalAveragePooling2D(), layers.Dense(3)]


class Case(NamedTuple):
    """A net, its modules' names in the order of the net, and the order in which they were made, if that is another.

    `made`, `other`: whether the load must be complete from a file that keeps the order in which modules were made, and
    from one that does not.
    """

    net: Callable[[], list[layers.Layer]]
    names: list[str]
    made: bool
    other: bool
    listed: list[str] | None = None


def numbered(form: str, count: int, begin: int = 0) -> list[str]:
    return [form.format(i) for i in range(begin, begin + count)]


BODY = ["conv1", "bn1", "conv2", "bn2"]
NECK = [*BODY, "conv3", "bn3"]
CASES = {
    "Sequential of 12": Case(lambda: convs(12), numbered("{}", 12), True, True),
    "nested": Case(lambda: convs(12), numbered("features.{}.0", 12), True, True),
    "blocks": Case(lambda: convs(22), [f"layer1.{i}.conv{j}" for i in range(11) for j in (1, 2)], True, True),
    "attributes": Case(lambda: convs(12), numbered("conv{}", 12, 1), True, True),
    "two numbers": Case(lambda: convs(12), [f"conv{i}_{j}" for i in range(1, 5) for j in (1, 2, 3)], True, True),
    "numbers inside words": Case(lambda: convs(11), numbered("layer{}b.c", 11), True, True),
    "with norms": Case(
        lambda: [layer for _ in range(11) for layer in (conv(use_bias=False), norm())], numbered("{}", 22), True, True
    ),
    "lists side by side": Case(
        lambda: [layer for _ in range(11) for layer in (conv(), norm())],
        [f"{kind}.{i}" for i in range(11) for kind in ("convs", "norms")], True, True,
        [f"{kind}.{i}" for kind in ("convs", "norms") for i in range(11)],
    ),
    "classifier and features": Case(
        lambda: [*convs(11), layers.Flatten(), layers.Dense(5), layers.Dense(5), layers.Dense(5)],
        [*numbered("features.{}", 11), *numbered("classifier.{}", 3)], True, True,
    ),
    "stem, blocks, head": Case(
        lambda: heads(8), ["stem", *numbered("blocks.{}", 11), "head"], True, True,
        ["head", *numbered("blocks.{}", 11), "stem"],
    ),
    "ordinals": Case(lambda: convs(3), ["first", "second", "third"], True, True),
    "stem, blocks, head of one shape": Case(
        lambda: convs(13), ["stem", *numbered("blocks.{}", 11), "head"], True, False
    ),
    "words": Case(lambda: convs(2), ["zz", "aa"], True, False),
    "encoder, decoder": Case(lambda: convs(4), [f"{a}.{i}" for a in ("encoder", "decoder") for i in "01"], True, False),
    "letters": Case(lambda: convs(2), ["conv_b", "conv_a"], True, False),
    "numbers against the order in which they were made": Case(
        lambda: convs(2), ["conv1", "conv2"], False, True, ["conv2", "conv1"]
    ),
    "ordinals against it": Case(lambda: convs(2), ["first", "second"], False, True, ["second", "first"]),
    "another net": Case(lambda: [conv(), conv(), conv(4, 5)], ["0", "2", "1"], False, False, ["0", "1", "2"]),
    "another net, in words": Case(
        lambda: [conv(), conv(), conv(4, 5)], ["a", "c", "b"], False, False, ["a", "b", "c"]
    ),
    "shortcut": Case(lambda: [conv(), *block(8)], ["conv", *BODY, "downsample.0", "downsample.1"], True, True),
    "shortcut of another name": Case(lambda: [conv(), *block(8)], ["conv", *BODY, "other.0", "other.1"], True, False),
    "bottleneck": Case(lambda: [conv(4, 5), *bottleneck(4)], ["c", *NECK, "skip.0", "skip.1"], True, True),
    "bottleneck, its shortcut made early": Case(
        lambda: [conv(4, 5), *bottleneck(4)], ["c", *NECK, "skip.0", "skip.1"], True, True,
        ["c", "skip.0", "skip.1", *NECK],
    ),
    "bottleneck, of another name": Case(
        lambda: [conv(4, 5), *bottleneck(4)], ["c", *NECK, "other.0", "other.1"], False, False
    ),
    "bottleneck, of another name, made between": Case(
        lambda: [conv(4, 5), *bottleneck(4)], ["c", *NECK, "other.0", "other.1"], False, False,
        ["c", *BODY, "other.0", "other.1", "conv3", "bn3"],
    ),
}  # fmt: skip


def built(net: Callable[[], list[layers.Layer]], seed: int) -> Sequential:
    return Sequential(net(), (6, 5, 4), seed=seed)


def owners(model: Sequential) -> list[dict[str, Any]]:
    """The arrays of each layer that has some, in PyTorch's axes, in the order of the net."""
    found: dict[int, dict[str, Any]] = {}
    image: Any = None
    for layer, before, _ in model.shapes(model.built_shape or ()):
        image = before if isinstance(layer, layers.Flatten) else image
        for path, parameter in layer.named_parameters():
            array = parameter.array
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            if array.ndim == 2:
                if image is not None:
                    array = array.reshape(*image, -1).transpose(2, 0, 1, 3).reshape(array.shape)
                    image = None
                array = array.T
            owner = found.setdefault(hash(path.rpartition("/")[0]), {})
            owner[TENSORS[path.rpartition("/")[2]]] = np.ascontiguousarray(array)
    return list(found.values())


def state_dict(case: Case, donor: Sequential) -> OrderedDict[str, Any]:
    """The state dictionary as PyTorch would list it, with its record of the modules."""
    arrays = dict(zip(case.names, owners(donor), strict=True))
    state: OrderedDict[str, Any] = OrderedDict()
    modules: OrderedDict[str, Any] = OrderedDict({"": {"version": 1}})
    for name in case.listed or case.names:
        modules[name] = {"version": 1}
        for last, array in arrays[name].items():
            state[f"{name}.{last}"] = array
        if "running_mean" in arrays[name]:
            state[f"{name}.num_batches_tracked"] = np.array(3, np.int64)
    state._metadata = modules  # type: ignore[attr-defined]
    return state


def as_pth(path: Path, state: Any, write: Any = archive) -> Path:
    """A file of PyTorch; what is no array stays what it is."""
    storages: dict[str, bytes] = {}

    def described(value: Any) -> Any:
        if isinstance(value, dict):
            made = type(value)((name, described(inner)) for name, inner in value.items())
            if hasattr(value, "_metadata"):
                made._metadata = value._metadata  # type: ignore[attr-defined]
            return made
        if not isinstance(value, np.ndarray):
            return value
        key, kind = str(len(storages)), {"f": "FloatStorage", "i": "LongStorage"}[value.dtype.kind]
        storages[key] = value.tobytes()
        strides = tuple(stride // value.itemsize for stride in value.strides)
        return tensor(key, value.size, 0, value.shape, strides, kind)

    return Path(write(path, described(state), storages))


def written(form: str, state: OrderedDict[str, Any], folder: Path) -> Path:
    """The state dictionary in one of the ways in which files come about."""
    path, items = folder / "w.pth", list(state.items())
    if form == "made":
        return as_pth(path, state)
    if form == "old":  # its sizes are in values of four bytes here
        return as_pth(path, OrderedDict((name, array) for name, array in items if array.dtype.kind == "f"), stream)
    if form == "plain":
        return as_pth(path, dict(items))
    if form == "prefixed":
        return as_pth(path, {f"module.{name}": array for name, array in items})
    if form == "sorted":
        return as_pth(path, OrderedDict(sorted(items)))
    if form == "reversed":
        return as_pth(path, dict(reversed(items)))
    if form == "shuffled":
        random.Random(1).shuffle(items)
        return as_pth(path, dict(items))
    prefix = "model.net." if "prefixed" in form else ""
    path = folder / "w.safetensors"
    path.write_bytes(tensors_file({f"{prefix}{name}": array for name, array in sorted(items)}))
    return path


@pytest.mark.parametrize("name", CASES)
def test_layers_are_found_by_what_names_mean(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    donor = drawn(built(case.net, 0))
    state = state_dict(case, donor)
    for form in MADE + SORTED:
        path, model = written(form, state, tmp_path), built(case.net, 1)
        if case.made if form in MADE else case.other:
            report = load_weights(model, path)
            assert report.complete and not report.guessed, form
            same_answers(model, donor)
            continue
        before = model.get_weights()
        with pytest.raises(ConvError, match=r"that is a guess:\n(.*\n)+Nothing was changed"):
            load_weights(model, path)
        for ours, old in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(ours, old)
        report = load_weights(model, path, strict=False)
        assert not report.complete and report.guessed and not report.missing and "in doubt" in str(report), form


def test_names_that_the_user_gave_decide(tmp_path: Path) -> None:
    """Also against every order, and without what all names of the file begin with."""

    def named(names: list[str], seed: int) -> Sequential:
        return Sequential([conv(name=name) for name in names], (6, 5, 4), seed=seed)

    donor = drawn(named(["zz", "aa"], 0))
    case = Case(lambda: convs(2), ["zz", "aa"], True, True)
    for form in MADE + SORTED:
        path, model = written(form, state_dict(case, donor), tmp_path), named(["zz", "aa"], 1)
        assert load_weights(model, path).complete
        same_answers(model, donor)


def test_our_own_files_by_their_names(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")

    def net(seed: int) -> Sequential:
        mixed = [layers.Conv2DTranspose(4, 3, padding="same"), *convs(11)]
        return Sequential([*mixed, Sequential(convs(11)), conv()], (6, 5, 4), seed=seed)

    donor, model = drawn(net(0)), net(1)
    donor.save(tmp_path / "w.safetensors")
    assert load_weights(model, tmp_path / "w.safetensors").complete
    same_answers(model, donor)
    flat = Sequential([layers.Conv2DTranspose(4, 3, padding="same"), *convs(23)], (6, 5, 4))
    with pytest.raises(ConvError, match="guess"):  # 'conv2d' and 'sequential/conv2d': which comes first?
        load_weights(flat, tmp_path / "w.safetensors")


def test_parts_of_names() -> None:
    assert step("10") == ("#", 10) and step("conv10") == ("conv", 10) and step("conv2d_1") == ("conv", 2, "d", "_", 1)
    assert step("second") == (2,) and step("²") != ("#", 2)
    assert step("9" * 5000) == ("#", -1) and step("a1" * 40) == ("a1" * 40,)


@pytest.mark.parametrize("name", ["a." * 100 + "weight", "a" * 2000 + ".weight", "a/" * 100 + "kernel"])
def test_names_that_no_module_has_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(tensors_file({name: np.zeros((1, 1), np.float32)}))
    with pytest.raises(ConvError, match=rf"w\.safetensors.*a name of {len(name)} characters"):
        load_weights(Sequential([layers.Dense(1)], (1,)), path)


# ---- checkpoints ---------------------------------------------------------------------------------------------------

NAMES = Case(lambda: convs(3), ["0", "2", "4"], True, True)


def both() -> tuple[Sequential, Any, Sequential, Any]:
    one = drawn(built(NAMES.net, 0))
    other = built(NAMES.net, 2)
    return one, state_dict(NAMES, one), other, state_dict(NAMES, other)


@pytest.mark.parametrize("write", [archive, stream])
@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "params", "ema", "generator"])
def test_a_wrapped_state_dict_is_taken(key: str, write: Any, tmp_path: Path) -> None:
    donor, state, _, _ = both()
    moments = {"exp_avg": np.zeros((3, 3), np.float32), "exp_avg_sq": np.zeros(3, np.float32)}
    held = {
        "epoch": 3, "best": 0.5, "name": "x", "nothing": None, "list": [1, 2], key: state,
        "optimizer": {"state": {0: moments, 1: moments}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "stats": {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)},
    }  # fmt: skip
    path = as_pth(tmp_path / "w.pth", held, write)
    model = built(NAMES.net, 1)
    report = load_weights(model, path)
    assert report.complete and any(f"entry {key!r}" in note for note in report.notes) and key in str(report)
    same_answers(model, donor)
    assert list(read_weights(path)) == list(state)


def test_of_several_the_user_chooses(tmp_path: Path) -> None:
    one, state, other, copy = both()
    path = as_pth(tmp_path / "w.pth", {"epoch": 1, "model": {"state_dict": state, "ema": copy}})
    with pytest.raises(ConvError, match=r"entry='model/state_dict' or entry='model/ema'"):
        load_weights(built(NAMES.net, 1), path)
    with pytest.raises(ConvError, match=r"no entry 'emma'.*entry='model/ema'"):
        read_weights(path, entry="emma")
    for entry, donor in (("model/state_dict", one), ("model/ema", other)):
        model = built(NAMES.net, 1)
        assert load_weights(model, path, entry=entry).complete
        same_answers(model, donor)
    same = as_pth(tmp_path / "same.pth", {"model": state, "state_dict": state})
    with pytest.raises(ConvError, match="several"):  # copies; PyTorch would write one twice as one
        load_weights(built(NAMES.net, 1), same)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_nets_beside_each_other_under_prefixes(suffix: str, tmp_path: Path) -> None:
    one, state, other, copy = both()
    held = {f"net.{name}": array for name, array in state.items()}
    held |= {f"ema.{name}": array for name, array in copy.items()}
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        as_pth(path, {"state_dict": held})
    else:
        path.write_bytes(tensors_file(held))
    with pytest.raises(ConvError, match=r"entry='net' or entry='ema'|entry='ema' or entry='net'"):
        load_weights(built(NAMES.net, 1), path)
    for entry, donor in (("net", one), ("ema", other)):
        model = built(NAMES.net, 1)
        report = load_weights(model, path, entry=entry)
        assert report.complete and "6 of 12" in report.notes[-1]
        same_answers(model, donor)
    with pytest.raises(ConvError, match="no entry 'both'"):
        load_weights(built(NAMES.net, 1), path, entry="both")
    assert len(read_weights(path, entry="ema")) == 6


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.net."])
def test_prefixes_are_no_part_of_the_net(prefix: str, tmp_path: Path) -> None:
    donor, state, _, _ = both()
    held = {f"{prefix}{name}": array for name, array in state.items()} | {"n_averaged": np.array(3, np.int64)}
    model = built(NAMES.net, 1)
    assert load_weights(model, as_pth(tmp_path / "w.pth", held)).complete
    same_answers(model, donor)


def test_numbers_between_tensors_are_left_out_and_told(tmp_path: Path) -> None:
    donor, state, _, _ = both()
    model = built(NAMES.net, 1)
    report = load_weights(model, as_pth(tmp_path / "w.pth", {**state, "epoch": 3}))
    assert report.complete and "epoch" in report.notes[0]
    same_answers(model, donor)
    with pytest.raises(ConvError, match=r"'0\.scale' is no tensor"):
        load_weights(model, as_pth(tmp_path / "w.pth", {**state, "0.scale": [1.0]}))


def test_what_torch_saves_beside_the_weights(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import argparse
    import datetime

    net = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 4, 5, 5)).sum().backward()
    optimizer.step()
    held = {
        "state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "args": argparse.Namespace(lr=0.1),
        "best": np.float64(3), "curve": np.arange(4.0), "when": datetime.datetime(2024, 1, 1), "seen": {1, 2},
        "rng": torch.get_rng_state(), "device": torch.device("cpu"), "dtype": torch.float32, "path": Path("x"),
    }  # fmt: skip
    for zipped in (True, False):
        path = tmp_path / "w.pth"
        torch.save(held, path, _use_new_zipfile_serialization=zipped)
        found = read_weights(path)
        assert list(found) == list(net.state_dict())
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(found[name], value.numpy())
    for whole in (net, {"model": net}):
        torch.save(whole, path)
        with pytest.raises(ConvError, match=r"torch\.nn\.modules\.container\.Sequential.*state_dict\(\)"):
            read_weights(path)
    torch.save({"a": held["optimizer"]}, path)
    with pytest.raises(ConvError, match="none is a dictionary of tensors"):
        read_weights(path)
