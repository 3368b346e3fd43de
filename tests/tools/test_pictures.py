"""Pictures for `fastconv run`: every kind is read as it looks, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

image_module = pytest.importorskip("PIL.Image", reason="Pillow reads pictures")

import made_pictures  # noqa: E402

from fastconv import cli  # noqa: E402
from fastconv.cli.common import CommandError  # noqa: E402
from fastconv.cli.pictures import covering, open_picture  # noqa: E402


def test_every_kind_is_read_as_it_looks_or_refused_by_name(tmp_path):
    wrong = {made.path.name: made_pictures.difference(made) for made in made_pictures.made(tmp_path)}
    assert len(wrong) > 80 and not {name: what for name, what in wrong.items() if what}


@pytest.mark.parametrize("height, width", [(7, 5), (12, 18), (40, 3), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "F"])
def test_a_picture_covers_the_input_about_its_middle(height, width, mode):
    """The same as to scale all of it and to cut out the middle then, in whole levels."""
    values = made_pictures.RGB if mode == "RGB" else (made_pictures.DEEP / 257).astype(np.float32)
    image = image_module.fromarray(values)
    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    whole = np.asarray(image.resize(size, image_module.Resampling.BILINEAR), np.float32)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    wanted = whole[top : top + height, left : left + width].reshape(height, width, -1)
    got = covering(image, height, width, 3)
    assert got.shape == (height, width, 3) and np.abs(got - wanted).max() <= 1


def damaged(folder: Path) -> dict[str, Path]:
    """Files that are no whole picture."""
    rng = np.random.default_rng(1)
    good = image_module.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    files = {}
    for suffix in ("png", "jpg", "gif", "tif", "webp", "bmp"):
        path = folder / f"good.{suffix}"
        good.save(path)
        data = path.read_bytes()
        for name, part in (("half", data[: len(data) // 2]), ("head", data[:20]), ("none", b"")):
            files[f"{name}.{suffix}"] = folder / f"{name}.{suffix}"
            files[f"{name}.{suffix}"].write_bytes(part)
    (folder / "text.png").write_text("no picture")
    (folder / "folder.png").mkdir()
    (folder / "empty.ppm").write_bytes(b"P6 0 4 255\n")
    made_pictures.png_of(folder / "bomb.png", 20_000, 20_000, 8, 2, b"")
    names = ("text.png", "folder.png", "empty.ppm", "bomb.png", "absent.png")
    return files | {name: folder / name for name in names}


def test_damaged_files_and_bombs_are_refused(tmp_path):
    for name, path in damaged(tmp_path).items():
        with pytest.raises(CommandError) as caught:
            open_picture(path)
        assert name in str(caught.value) and "\n" not in str(caught.value)
        assert ("too large" in str(caught.value)) is (name == "bomb.png")


def test_a_large_picture_below_the_limit_is_read_without_a_warning(tmp_path, monkeypatch, recwarn):
    image_module.new("L", (40, 40), 7).save(tmp_path / "large.png")
    monkeypatch.setattr(image_module, "MAX_IMAGE_PIXELS", 1000)  # from there on Pillow warns, from twice on it refuses
    assert open_picture(tmp_path / "large.png", 1).getpixel((5, 5)) == 7
    assert not recwarn.list


def test_a_thread_of_pixels_takes_little_memory(tmp_path):
    """Scaled as a whole, 1 x 30,000 pixels would become 224 x 6,720,000."""
    image_module.new("RGB", (1, 30000), (10, 20, 30)).save(tmp_path / "long.png")
    assert (covering(open_picture(tmp_path / "long.png"), 224, 224, 3) == [10, 20, 30]).all()


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def nets(tmp_path) -> Path:
    """A model that hands its input on, for colours and for grey, and one that scores the channels."""
    onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")
    from onnx_models import model

    make = onnx.helper.make_node
    scores = [make("GlobalAveragePool", ["x"], ["g"]), make("Flatten", ["g"], ["y"])]
    for name, nodes, channels in (
        ("same", [make("Identity", ["x"], ["y"])], 3), ("grey", [make("Identity", ["x"], ["y"])], 1),
        ("scores", scores, 3),
    ):  # fmt: skip
        onnx.save(model(onnx, nodes, {"x": [1, channels, 12, 18]}, {"y": None}), tmp_path / f"{name}.onnx")
    return tmp_path


def run(capsys: Any, *words: str) -> Any:
    assert cli.main(["run", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["outputs"][0]


@pytest.mark.parametrize("net, bits", [("same", 8), ("same", 16), ("grey", 8), ("grey", 16)])
def test_sixteen_bits_say_what_eight_say(net, bits, nets, capsys):
    values = made_pictures.DEEP if bits == 16 else (made_pictures.DEEP / 257).round().astype(np.uint8)
    image_module.fromarray(values).save(nets / "ramp.png")
    said = run(capsys, str(nets / f"{net}.onnx"), str(nets / "ramp.png"))
    assert (said["min"], said["max"]) == (0, 1) and said["mean"] == pytest.approx(0.5, abs=2e-3)


def refused(capsys: Any, *words: str) -> str:
    assert cli.main(["run", *words]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("fastconv run: error: ") and err.count("\n") == 1 and out == ""
    return err


def test_labels(nets, tmp_path, capsys):
    image_module.new("RGB", (18, 12), (0, 255, 0)).save(tmp_path / "green.png")
    words = [str(nets / "scores.onnx"), str(tmp_path / "green.png"), "--labels", str(tmp_path / "names")]
    for text, name in (
        (b"red\ngreen\nblue\n", "green"), (b"\xef\xbb\xbfred\ngreen\n", "green"), (b'["a", "\xc3\xa9"]', "é"),
        (b'{"1": "one", "0": "none"}', "one"), (b"5", None), (b"[" * 100_000, None),
    ):  # fmt: skip
        (tmp_path / "names").write_bytes(text)
        assert run(capsys, *words)["top"][0]["name"] == name
    for text in (b"caf\xe9\n", "rot\ngrün\n".encode("utf-16")):
        (tmp_path / "names").write_bytes(text)
        assert "not UTF-8" in refused(capsys, *words)
    assert "absent" in refused(capsys, *words[:-1], str(tmp_path / "absent"))


def test_arrays(nets, tmp_path, capsys):
    np.save(tmp_path / "good.npy", np.zeros((1, 3, 12, 18), np.float32))
    good = (tmp_path / "good.npy").read_bytes()
    with open(tmp_path / "many.npy", "wb") as file:
        np.savez(file, a=np.zeros(3))
    claimed = good.replace(b"(1, 3, 12, 18), }       ", b"(1099511627776, 8), }   ")
    assert claimed != good
    for name, data in (
        ("half", good[:200]), ("head", good[:40]), ("zip", b"PK\x03\x04"), ("text", b"no"), ("none", b""),
        ("claimed", claimed),
    ):  # fmt: skip
        (tmp_path / f"{name}.npy").write_bytes(data)
    for name in ("half", "head", "zip", "text", "none", "many", "claimed", "absent"):
        refused(capsys, str(nets / "same.onnx"), str(tmp_path / f"{name}.npy"))
    assert run(capsys, str(nets / "same.onnx"), str(tmp_path / "good.npy"))["max"] == 0


def test_a_picture_that_cannot_be_saved_is_refused_before_the_work(nets, tmp_path, capsys):
    image_module.new("RGB", (18, 12)).save(tmp_path / "x.png")
    (tmp_path / "folder.png").mkdir()
    words = [str(nets / "same.onnx"), str(tmp_path / "x.png"), "--save"]
    missing = tmp_path / "missing"
    assert str(missing) in refused(capsys, *words, str(missing / "y.png"))
    assert "folder.png" in refused(capsys, *words, str(tmp_path / "folder.png"))
    for name in ("y.xyz", "y", ".png"):
        assert "no format" in refused(capsys, *words, str(tmp_path / name))
    assert cli.main(["run", *words, str(tmp_path / "y.png")]) == 0
    assert open_picture(tmp_path / "y.png").size == (18, 12)
