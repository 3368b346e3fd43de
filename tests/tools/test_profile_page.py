"""Pages of profiles and benchmarks: what they say is what was measured, and they load nothing and run no name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import webbrowser
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import Sequential, cli, layers, models
from fastconv.bench.report import Row, Timing, json_lines, read
from fastconv.bench.suite import copy_speed
from fastconv.graph.summary import Profile, StepTime
from fastconv.models.catalogue import from_catalogue

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>alert('x')</script>\" onload=\"alert(1)"
SIZE = (48, 44, 3)
ROOF_GFLOPS, ROOF_GBYTES = 100.0, 10.0


# ---- what the steps cost ---------------------------------------------------------------------------------------------


def small_net() -> Sequential:
    shortcut = [layers.Conv2D(8, 1, strides=2)]
    body = [layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"), layers.Conv2D(8, 3, padding="same")]
    return Sequential(
        [layers.Conv2D(8, 5, padding="same"), layers.Residual(body, shortcut), layers.AveragePooling2D(),
         layers.Conv2DTranspose(4, 2, strides=2), layers.Conv2D(2, 3, padding="same", dilation_rate=2)],
        input_shape=SIZE, seed=0,
    )  # fmt: skip


def profile_of(model: Sequential, batch: int = 1) -> Profile:
    plan = model.compile_inference()
    return plan.profile(np.random.default_rng(0).random((batch, *plan.sample), np.float32), 1)


@pytest.mark.parametrize(
    ("name", "batch"), [("resnet18", 1), ("resnet18", 3), ("cifar_vgg", 3), ("dcgan_generator", 1), ("mnist_net", 3)]
)
def test_multiply_adds_and_fields_are_those_of_the_table_of_layers(name: str, batch: int) -> None:
    model = from_catalogue(name, seed=0)
    found, table = profile_of(model, batch), model.table()
    assert sum(step.macs for step in found.steps) == batch * table.macs
    fields = {row.name: row.field for row in table.rows}
    seen = [(step.field, fields[step.operators.split(" + ")[-1]]) for step in found.steps if step.field]
    assert bool(seen) == (name != "dcgan_generator")  # whose input is no image
    if name != "resnet18":  # whose blocks have layers of the same names
        assert all(own == listed for own, listed in seen)
    else:
        assert seen[-1][0] == (435 + 6 * 32,) * 2  # Araujo et al. (2019): 435; then the mean of 7 x 7 results


def test_a_receptive_field_is_what_changes_a_result() -> None:
    """Against the pixels whose change reaches the result in the middle, where all weights are one."""
    model = small_net()
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    plan, size = model.compile_inference(), SIZE[:2]
    middle = tuple(length // 2 for length in plan.output_shape[:2])
    x = np.zeros((1, *SIZE), np.float32)
    reached, before = np.zeros(size, bool), plan.run(x)[0][middle]
    for pixel in np.ndindex(*size):
        x[0][pixel] = 1
        reached[pixel] = np.abs(plan.run(x)[0][middle] - before).max() > 0.1  # it changes by a quarter at least
        x[0][pixel] = 0
    extent = tuple(int(np.ptp(np.flatnonzero(reached.any(1 - axis)))) + 1 for axis in (0, 1))
    assert profile_of(model).steps[-1].field == extent == (21, 21)


def test_bytes_of_a_step_are_counted_by_hand() -> None:
    net = Sequential([layers.Conv2D(8, 3, padding="same", use_bias=False)], input_shape=(16, 16, 4), seed=0)
    (step,) = profile_of(net).steps
    assert step.operator == "Conv" and step.why and step.name == "conv2d"
    values = 4 * (16 * 16 * 4 + 16 * 16 * 8)
    assert step.moved_bytes == values + step.weight_bytes and step.weight_bytes >= 4 * 9 * 4 * 8
    assert step.used_bytes >= 4 * 16 * 16 * 8


def test_a_batch_in_slices_says_how_and_why() -> None:
    one, many = (profile_of(models.resnet(18, seed=0), batch).steps for batch in (1, 5))
    assert [(s.how, s.why, s.field) for s in many] == [(s.how, s.why, s.field) for s in one]
    assert all(s.shape[0] == 5 for s in many)


# ---- the page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What is in a page: tags with attributes, and the cells of tables by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.words: list[str] = []
        self._cell: list[str] | None = None
        self._table, self._value = "", None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "table":
            self._table = str(found["id"])
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self._cell, self._value = [], found.get("data-value")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[self._table][-1].append(("".join(self._cell), self._value))
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def column(self, table: str, head: str) -> list[tuple[str, str | None]]:
        heads, *rows = self.tables[table]
        at = [name for name, _ in heads].index(head)
        return [row[at] for row in rows]


def made(profile: Profile, title: str = "net", inputs: Any = None) -> str:
    pytest.importorskip("matplotlib")
    from fastconv.pages.charts import Roof
    from fastconv.pages.profile import About, profile_page

    shapes = inputs if inputs is not None else {"input": (1, *SIZE)}
    return profile_page(profile, About(title, shapes, "a machine", "today", Roof(ROOF_GFLOPS, ROOF_GBYTES)))


@pytest.fixture(scope="module")
def profile() -> Profile:
    return profile_of(small_net())


@pytest.fixture(scope="module")
def text(profile: Profile) -> str:
    return made(profile)


def loads(text: str) -> list[str]:
    """Whatever a browser would fetch."""
    found = [
        f"{name}={value}" for _, attributes in Page(text).tags for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster") and not str(value).startswith("#")
    ]  # fmt: skip
    found += [tag for tag, _ in Page(text).tags if tag in ("link", "img", "iframe", "object", "embed", "base", "image")]
    found += re.findall(r"url\((?!#)[^)]*\)|@import[^;]*", text)
    return found + [word for word in re.findall(r"https?://[^\"'\s<]+", text) if "www.w3.org" not in word]


def test_a_profile_is_on_its_page_step_by_step(profile: Profile, text: str) -> None:
    page = Page(text)
    assert loads(text) == [] and "default-src 'none'" in text
    steps, seconds = profile.steps, profile.seconds
    assert len(page.tables["steps"]) == 1 + len(steps)
    assert [float(value or 0) for _, value in page.column("steps", "ms")] == [s.seconds for s in steps]
    assert [name.split(" → ")[0] for name, _ in page.column("steps", "step")] == [s.operators for s in steps]
    for step, (share, _), (speed, value), (peak, _), (moved, _), (used, _), (field, _), (why, _) in zip(
        steps, *(page.column("steps", head) for head in (
            "share, %", "GFLOP/s", "of peak, %", "moved, MB", "in memory, MB", "field", "algorithm, and why")),
        strict=True,
    ):  # fmt: skip
        assert float(share) == pytest.approx(100 * step.seconds / seconds, abs=0.06)
        if step.macs:
            assert float(value or 0) == 2e-9 * step.macs / step.seconds
            assert float(speed) == pytest.approx(float(value or 0), rel=0.01)
            assert float(peak) == pytest.approx(100 * float(value or 0) / ROOF_GFLOPS, abs=0.06)
        assert float(moved) == pytest.approx(1e-6 * step.moved_bytes, rel=0.01)
        assert float(used) == pytest.approx(1e-6 * step.used_bytes, rel=0.01)
        assert field == str(step.field[0]) and (step.how or step.operator) in why
        assert all(sentence in why for sentence in step.why)
    assert sum(float(value or 0) for _, value in page.column("kinds", "ms")) == pytest.approx(seconds)


def test_every_picture_has_its_steps_and_follows_the_screen(profile: Profile, text: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 4  # two, wide and narrow
    for picture in pictures:
        assert 'role="img"' in picture and "aria-label" in picture and "var(--ink)" in picture
        assert not re.search(r"(?:fill|stroke): *(?:black|#0{3,6}|#f{3,6})", picture)
        linked = {int(number) for number in re.findall(r'href="#step-(\d+)"', picture)}
        assert linked and linked <= set(range(1, len(profile.steps) + 1))
    ids = [str(found["id"]) for _, found in Page(text).tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in text and "@media (max-width" in text
    assert len(text) < 300_000


def test_names_are_text_whatever_they_hold() -> None:
    steps = [
        StepTime(HOSTILE, HOSTILE, (1, 4, 6, 6), 1e-3, HOSTILE, HOSTILE, (HOSTILE, HOSTILE), 1000, 10, 20, 30, (3, 3)),
        StepTime("broken \ud800 \x00 $\\frac{$ & <b>", "", (), 0.0),
    ]
    text = made(Profile(1, steps), HOSTILE, {HOSTILE: (1, 3, 6, 6)})
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and loads(text) == []
    assert not any(name.startswith("on") for _, found in page.tags for name in found)
    assert HOSTILE in page.column("steps", "step")[0][0]
    text.encode("utf-8")


def test_a_hostile_file_is_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("matplotlib")
    make = onnx.helper.make_node
    weight = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = onnx.helper.make_graph(
        [make("Conv", [HOSTILE, "w"], ["c"], name=HOSTILE), make("NonZero", ["c"], ["y"])], HOSTILE,
        [onnx.helper.make_tensor_value_info(HOSTILE, 1, ["N", 3, None, None])],
        [onnx.helper.make_tensor_value_info("y", 7, None)], [weight],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path, target = tmp_path / "<b>net.onnx", tmp_path / "page.html"
    path.write_bytes(model.SerializeToString())
    arguments = ["profile", str(path), "--input-size", "9", "--batch", "2", "--runs", "1", "--html", str(target)]
    assert cli.main(arguments) == 0
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and "b" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.column("steps", "step")[0][0] and "Profile of <b>net.onnx" in "".join(page.words)
    assert str(target) in capsys.readouterr().err


# ---- the command -----------------------------------------------------------------------------------------------------

MODULE = """
import numpy as np
from dataclasses import dataclass
from fastconv import Input, Model, Sequential, layers

@dataclass
class Wide:
    filters: int = 4

def net():
    chain = [layers.Conv2D(Wide().filters, 3), layers.Flatten(), layers.Dense(2)]
    return Sequential(chain, input_shape=(8, 8, 3), seed=0)

def plan():
    return net().compile_inference()

def several():
    image, numbers = Input((8, 8, 3), name="image"), Input((5,), name="numbers")
    flat = layers.Flatten()(layers.Conv2D(4, 3)(image))
    return Model([image, numbers], layers.Dense(2)(layers.Concatenate()([flat, numbers])), seed=0)

def several_planned():
    return several().compile_inference()

def nothing():
    return None

def broken():
    raise RuntimeError("out of luck")
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(MODULE, encoding="utf-8")
    return str(tmp_path / "nets.py")


@pytest.mark.parametrize("function", ["net", "plan"])
def test_a_function_of_a_file_is_profiled(function: str, module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", f"{module}:{function}", "--runs", "2", "--batch", "3", "--threads", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == f"nets.py:{function}" and said["inputs"] == {"input": [3, 8, 8, 3]} and said["runs"] == 2
    assert sum(step["macs"] for step in said["steps"]) == 3 * (36 * 27 * 4 + 144 * 2)
    assert said["seconds"] == pytest.approx(sum(step["seconds"] for step in said["steps"]))


@pytest.mark.parametrize(
    ("function", "options"), [("several", []), ("several_planned", []), ("several", ["--input-size", "8"])]
)
def test_a_model_of_several_inputs_is_profiled(
    function: str, options: list[str], module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["profile", f"{module}:{function}", "--runs", "1", "--batch", "3", "--json", *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs"] == {"image": [3, 8, 8, 3], "numbers": [3, 5]}
    assert sum(step["macs"] for step in said["steps"]) == 3 * (36 * 27 * 4 + 149 * 2)


def test_threads_are_put_back(module: str) -> None:
    before = fastconv.get_num_threads()
    assert cli.main(["profile", f"{module}:net", "--threads", "1", "--runs", "1"]) == 0
    assert fastconv.get_num_threads() == before


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("alexnet", [], "no model is named 'alexnet'; there are vgg11, "),
        ("MODULE:none", [], "has no function 'none'"),
        ("MODULE:nothing", [], "returned a NoneType; export models of other libraries to ONNX"),
        ("MODULE:broken", [], "(RuntimeError: out of luck)"),
        ("MODULE:plan", ["--input-size", "9"], "leave out --input-size"),
        ("/no/such.py:net", [], "/no/such.py cannot be loaded"),
        ("mnist_net", ["--open"], "give both"),
        ("mnist_net", ["--html", "/no/such/page.html"], "does not exist"),
    ],
)
def test_what_cannot_be_profiled_is_one_line(
    model: str, options: list[str], said: str, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--html" in options:
        pytest.importorskip("matplotlib")
    assert cli.main(["profile", model.replace("MODULE", module), *options]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_without_matplotlib_the_extra_is_named_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for command in (["profile", "alexnet"], ["bench"], ["bench", "--read", "nothing.jsonl"]):
        assert cli.main([*command, "--html", str(tmp_path / "page.html")]) == 1
        assert "pip install fastconv[html]" in capsys.readouterr().err


def test_open_shows_the_page(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    from fastconv.cli import profile as profile_command
    from fastconv.pages.charts import Roof

    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(shown.append(address)))
    monkeypatch.setattr(profile_command, "_roof", lambda: Roof(ROOF_GFLOPS, ROOF_GBYTES))
    target = tmp_path / "page.html"
    assert cli.main(["profile", f"{module}:net", "--runs", "1", "--html", str(target), "--open"]) == 0
    assert shown == [target.as_uri()] and "no browser was found" in capsys.readouterr().err
    assert loads(target.read_text(encoding="utf-8")) == []


def test_copies_have_a_speed() -> None:
    assert 0.01 < copy_speed(1) < 10_000


# ---- the page of a benchmark -----------------------------------------------------------------------------------------

SHAPE = {"input": [1, 64, 56, 56], "weight": [64, 64, 3, 3], "output": [1, 64, 56, 56], "dtype": "float32"}


def rows() -> list[Row]:
    def timing(peer: str, seconds: float, correct: bool = True) -> Timing:
        return Timing(peer, "", seconds, seconds, 1, 0.0, correct)

    return [
        Row("vgg16", "first $x_{$ <b>", "3×3", "fwd", 115_605_504, SHAPE, 100.0,
            [timing("fastconv", 1e-3), timing("torch", 3e-3), timing("litert", 2e-3)]),
        Row("vgg16", "second", "3×3", "fwd", 115_605_504, SHAPE, 100.0,
            [timing("fastconv", 4e-3), timing("torch", 2e-3), timing("litert", 1e-3, False)]),
        Row("zoo", "given.onnx", "given", "net", 0, {"input": [1]}, 100.0,
            [timing("fastconv", 1e-3), timing("onnxruntime", 2e-3)], absent={"torch": "no <such> net"}),
    ]  # fmt: skip


def report() -> Any:
    from fastconv.bench.peers import Ours
    from fastconv.bench.suite import new_report

    made = new_report(Ours(1), [], {}, {})
    made.rows = rows()
    return made


@pytest.mark.parametrize("copies", [None, 12.5])
def test_a_benchmark_is_on_its_page_row_by_row(tmp_path: Path, copies: float | None) -> None:
    pytest.importorskip("matplotlib")
    from fastconv.pages.bench import bench_page

    run = report()
    if copies:
        run.machine["copy_gbytes"] = copies
    (tmp_path / "rows.jsonl").write_text(json_lines(run), encoding="utf-8")
    text = bench_page(read(tmp_path / "rows.jsonl"))
    page = Page(text)
    assert loads(text) == [] and "b" not in {tag for tag, _ in page.tags}
    assert [name for name, _ in page.column("rows-1-1", "what")] == ["first $x_{$ <b>", "second"]
    assert [ms for ms, _ in page.column("rows-1-1", "fastconv, ms")] == ["1.00", "4.00"]
    assert [times for times, _ in page.column("rows-1-1", "× best")] == ["2.00×", "0.500×"]
    assert [best for best, _ in page.column("rows-1-1", "the best")] == ["litert", "torch"]
    assert [ms for ms, _ in page.column("rows-1-1", "litert, ms")] == ["2.00", "wrong"]
    speeds = [float(value or 0) for _, value in page.column("rows-1-1", "GFLOP/s")]
    assert speeds == pytest.approx([231.211008, 57.802752])
    assert [ms for ms, _ in page.column("rows-1-2", "onnxruntime, ms")] == ["2.00"]
    assert "are not counted" in text and ("12 GB/s" in text) == bool(copies)
    assert len(re.findall("<svg", text)) == 4


@pytest.mark.parametrize("content", ["", "{}", "[1]", "no JSON", '{"schema": 1}', '{"schema": 2}'])
def test_files_that_hold_no_rows_are_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    assert cli.main(["bench", "--read", str(tmp_path / "rows.jsonl")]) == 1
    error = capsys.readouterr().err
    assert "rows.jsonl' holds no rows" in error and error.count("\n") == 1


def test_rows_of_a_file_are_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text(json_lines(report()), encoding="utf-8")
    assert cli.main(["bench", "--read", str(tmp_path / "rows.jsonl")]) == 0
    assert "second" in (said := capsys.readouterr().out) and "given.onnx" in said


# ---- in a browser ----------------------------------------------------------------------------------------------------

PROBE = """<script>
const head = [...document.querySelectorAll("#steps thead button")].find((one) => one.textContent === "ms");
head.click();
const link = document.querySelector("figure svg.wide a");
link.firstElementChild.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 5, clientY: 5}));
document.title = JSON.stringify({
  order: [...document.querySelectorAll("#steps tbody tr")].map((row) => row.id),
  sorted: head.parentElement.getAttribute("aria-sort"), tip: document.getElementById("tip").textContent,
  wide: getComputedStyle(document.querySelector("svg.wide")).display,
  page: document.documentElement.scrollWidth, window: innerWidth,
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_chromium_sorts_and_fits_a_narrow_window(profile: Profile, text: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text.replace("</body>", PROBE), encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}",
         "--window-size=500,900", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    said = json.loads(unescape(title[1]))
    order = sorted(range(len(profile.steps)), key=lambda at: -profile.steps[at].seconds)
    assert said["order"] == [f"step-{at + 1}" for at in order] and said["sorted"] == "descending"
    assert profile.steps[0].operators in said["tip"] and "GFLOP/s" in said["tip"]
    assert said["wide"] == "none" and said["page"] <= said["window"]
