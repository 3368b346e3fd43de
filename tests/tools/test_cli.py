"""The command line: every command, its JSON, its exit status, and one clear line for whatever goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import _native, cli
from fastconv._core import forks, threads
from fastconv.cli import check as check_command
from fastconv.cli import common, machine
from fastconv.testing.comparisons import OPERATIONS, Comparison, Operation

COMMANDS = sorted(cli.COMMANDS)


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m fastconv` in a process of its own, with the fastconv under test."""
    path = os.pathsep.join(filter(None, [str(Path(fastconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fastconv", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.kill()  # or it would compute on behind the tests
        raise
    return process.returncode, out, err


def the_only_line(err: str) -> str:
    """What standard error says: one line, and no traceback."""
    assert "Traceback" not in err
    assert err.endswith("\n") and err.count("\n") == 1, err
    return err


# ---- usage ----------------------------------------------------------------------------------------------------------


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n    {name} " in out or f"\n    {name}\n" in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_describes_it(command, capsys):
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: fastconv {command}") and len(out) > 300


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastconv {fastconv.__version__}\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "required: COMMAND"),
        (["bake"], "'bake'"),
        (["info", "--jsn"], "--jsn"),
        (["check", "--cases", "many"], "'many' is not an integer"),
        (["check", "--cases", "0"], "0 is below 1"),
        (["check", "--seed", "-1"], "-1 is below 0"),
        (["check", "--cases"], "expected one argument"),
        (["demo", "--seed", "0.5"], "'0.5' is not an integer"),
        (["demo", "extra"], "extra"),
    ],
    ids=str,
)
def test_bad_usage_is_one_line_and_status_2(arguments, words, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    line = the_only_line(err)
    assert words in line and "--help" in line and out == ""


def test_a_module_of_its_own_runs_as_a_program():
    status, out, err = finish(start("info", "--json"))
    assert status == 0 and err == ""
    assert json.loads(out)["version"] == fastconv.__version__


def test_an_unusable_instruction_set_is_one_line():
    status, out, err = finish(start("info", FASTCONV_ISA="abacus"))
    assert status != 0 and out == ""
    line = the_only_line(err)
    assert "FASTCONV_ISA=abacus" in line and _native.isas_available()[0] in line


def test_an_unusable_instruction_set_is_one_line_for_the_installed_command(tmp_path):
    script = tmp_path / "fastconv"
    script.write_text("import sys\nfrom fastconv.cli import main\nsys.exit(main())\n")
    environment = {**os.environ, "FASTCONV_ISA": "abacus", "PYTHONPATH": str(Path(fastconv.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-P", str(script), "info"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "FASTCONV_ISA=abacus" in the_only_line(done.stderr)


def test_importing_with_an_unusable_instruction_set_raises():
    environment = {**os.environ, "FASTCONV_ISA": "abacus", "PYTHONPATH": str(Path(fastconv.__file__).parents[1])}
    script = "try:\n import fastconv\nexcept ImportError as error:\n print(error)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "FASTCONV_ISA=abacus" in done.stdout


def test_an_interrupt_ends_with_130():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background may ignore it
    try:
        process = start("check", "--cases", "100000")
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("fastconv")  # the head: the command is at work
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert "interrupted" in err and "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error():
    process = start("check", "--cases", "30")
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.wait(timeout=100), process.stderr.read() if process.stderr else ""
    assert process.returncode == 1 and err == ""


@pytest.mark.parametrize(
    "error", [fastconv.ConvError("bad shape"), OSError(28, "No space left on device"), MemoryError()], ids=repr
)
def test_errors_of_a_command_are_one_line(error, monkeypatch, capsys):
    def fail(args: Any) -> int:
        raise error

    monkeypatch.setattr("fastconv.cli.info.run", fail)
    assert cli.main(["info"]) == 1
    line = the_only_line(capsys.readouterr().err)
    assert line.startswith("fastconv info: error: ") and len(line) > len("fastconv info: error: ") + 5


# ---- info -----------------------------------------------------------------------------------------------------------


def test_info_says_what_is_used(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for name in ("ISA in use", "ISAs built", "ISAs offered", "threads", "OpenMP", "register tiles", "NumPy", "CPU"):
        assert f"\n{name}" in out
    assert machine.cpu_name() in out and np.__version__ in out


def test_info_as_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["isa"] == _native.isa_name()
    assert told["isas_built"] == list(_native.isas_built())
    assert told["threads_explained"]["threads"] == fastconv.get_num_threads()
    rows, columns = told["register_tiles"]["float32"]
    assert rows >= 1 and columns >= 4


@pytest.mark.parametrize(
    "wish, cpus, quota, cap, count, why",
    [
        (None, 4, None, None, 4, "the CPUs that this process may run on"),
        (None, 4, 2, None, 2, "the control group's CPU quota"),
        (None, 4, 8, None, 4, "the CPUs that this process may run on"),
        ("3", 4, 2, None, 3, "OMP_NUM_THREADS"),
        ("3,2", 4, None, None, 3, "OMP_NUM_THREADS"),
        ("many", 4, None, None, 4, "the CPUs that this process may run on"),
        ("3", 4, 2, 1, 1, "set_num_threads"),
    ],
)
def test_the_number_of_threads_is_explained(wish, cpus, quota, cap, count, why, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wish:
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
    monkeypatch.setattr(threads, "_cpus", lambda: cpus)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: quota)
    monkeypatch.setattr(threads, "_cap", cap)
    monkeypatch.setattr(forks, "forked", False)
    monkeypatch.setattr(threads, "_openmp", 0)  # whatever limit an earlier test left with OpenMP
    told = threads.explain()
    assert (told["threads"], told["why"]) == (count, why)
    assert (told["affinity"], told["cgroup_quota"]) == (cpus, quota)


# ---- check ----------------------------------------------------------------------------------------------------------


def test_check_compares_every_operation_on_every_instruction_set(capsys):
    used = _native.isa_name()
    assert cli.main(["check", "--cases", "9", "--seed", "5", "--isa", "all", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["results"]) == set(_native.isas_available())
    assert told["failed"] == 0 and told["cases"] == 9 and told["seed"] == 5
    for rows in told["results"].values():
        assert [row["operation"] for row in rows] == [operation.name for operation in OPERATIONS]
        assert all(row["cases"] > 0 and row["exact"] + row["bounded"] >= row["cases"] for row in rows)
        assert all(0 <= row["worst"] <= 1 for row in rows)
    assert _native.isa_name() == used


def test_check_prints_a_table(capsys):
    assert cli.main(["check", "--cases", "6"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{operation.name} " in out for operation in OPERATIONS)
    assert "All equal or within the bound" in out


def test_check_compares_other_problems_with_another_seed(capsys):
    texts = []
    for seed in ("0", "1", "1"):
        cli.main(["check", "--cases", "3", "--seed", seed, "--json"])
        texts.append(json.loads(capsys.readouterr().out)["results"])
    assert texts[0] != texts[1] == texts[2]


def test_check_refuses_an_instruction_set_that_is_not_offered(capsys):
    assert cli.main(["check", "--isa", "abacus"]) == 1
    line = the_only_line(capsys.readouterr().err)
    assert "abacus" in line and _native.isas_available()[0] in line


@pytest.mark.parametrize("kind", ["wrong", "outside the bound", "raises"])
def test_check_reports_what_is_wrong(kind, monkeypatch, capsys):
    def compare(case: Any) -> Any:
        if kind == "raises":
            raise ZeroDivisionError("made up")
        bound = None if kind == "wrong" else np.full(3, 0.25)
        yield Comparison("sum", np.array([1.0, 2.5, 3.0]), np.array([1.0, 2.0, 3.0]), bound)

    bad = Operation("made up", lambda count, first: tuple(range(first, first + count)), compare)
    monkeypatch.setattr(check_command, "OPERATIONS", (OPERATIONS[0], bad))
    assert cli.main(["check", "--cases", "7"]) == 1
    out = capsys.readouterr().out
    assert "7 FAILED" in out and "... and 2 more" in out
    assert ("ZeroDivisionError" if kind == "raises" else "(1,): 2.5, not 2.0") in out
    assert cli.main(["check", "--cases", "7", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    row = told["results"][_native.isa_name()][1]
    assert told["failed"] == row["failed"] == 7 and len(row["faults"]) == check_command.MOST_FAULTS
    if kind == "outside the bound":
        assert row["worst"] == 2


# ---- what commands share --------------------------------------------------------------------------------------------


def test_progress_is_silent_without_a_terminal(capsys):
    assert list(common.progress([1, 2, 3], 3, "title", "cases")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_progress_is_shown_on_request(with_tqdm, monkeypatch, capsys):
    if not with_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    assert list(common.progress(range(20), 20, "title", "cases", show=True)) == list(range(20))
    out, err = capsys.readouterr()
    assert out == "" and "title" in err and "20/20" in err


def test_a_missing_package_names_its_extra():
    with pytest.raises(common.CommandError, match=r"nosuchpackage.*pip install fastconv\[demo\]"):
        common.require("nosuchpackage.part", "demo")


# ---- demo -----------------------------------------------------------------------------------------------------------

PARTS = ("matplotlib", "threadpoolctl", "mlxtend", "skimage")


def demo_is_installed() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) for name in PARTS)


needs_demo = pytest.mark.skipif(not demo_is_installed(), reason="needs fastconv[demo]")


@needs_demo
@pytest.mark.parametrize("missing", PARTS)
def test_demo_says_at_once_which_extra_is_missing(missing, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing in ("mlxtend", "skimage"):
        monkeypatch.delitem(sys.modules, missing)
        monkeypatch.setattr("fastconv.cli.demo.data.find_spec", lambda name: None)
    assert cli.main(["demo", "--output", str(tmp_path / "made")]) == 1
    out, err = capsys.readouterr()
    assert "pip install fastconv[demo]" in the_only_line(err)
    assert out == "" and not (tmp_path / "made").exists()


@needs_demo
def test_demo_refuses_a_folder_that_cannot_be_written(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below", Path("/proc/nothing")):
        assert cli.main(["demo", "--output", str(folder)]) == 1
        out, err = capsys.readouterr()
        line = the_only_line(err)
        assert str(folder) in line and "--output" in line and out == ""


@needs_demo
def test_a_dense_pass_gives_the_scores_of_every_window():
    from fastconv.cli.demo import digits, page

    _, held_out = digits.digits(0)
    drawn = page.draw_page(held_out, np.random.default_rng(1), 2, 3)
    net = digits.build_net(0)
    reading = page.read_page(net.to_fully_convolutional(), drawn)
    _, difference = digits._each_window(net, drawn, reading)
    assert difference < 1e-5


@needs_demo
def test_the_page_is_judged_by_place_and_label():
    from fastconv.cli.demo import page

    drawn = page.Page(np.zeros((64, 96), np.float32), np.array([[8, 8, 3], [8, 44, 5], [30, 8, 7]]))
    seen = np.array([[9, 6, 3], [8, 44, 6], [30, 60, 1]])
    reading = page.Reading(seen, np.ones(3), np.zeros((10, 18)), np.zeros((10, 18), int))
    right, found, read = page.judge(drawn, reading)
    assert right.tolist() == [True, False, False]
    assert found.tolist() == [True, True, False]
    assert read.tolist() == [True, False, False]


@needs_demo
def test_digits_are_shuffled_and_held_out_apart():
    from fastconv.cli.demo.data import digits

    learned, held_out = digits(0)
    assert learned.images.shape == (4000, 28, 28, 1) and held_out.images.shape == (1000, 28, 28, 1)
    assert np.bincount(np.concatenate([learned.labels, held_out.labels])).tolist() == [500] * 10
    assert np.bincount(held_out.labels).min() > 50
    assert learned.images.min() == 0 and learned.images.max() == 1
    again, _ = digits(0, 100)
    np.testing.assert_array_equal(again.images, learned.images[:100])
    assert not np.array_equal(digits(1)[1].labels, held_out.labels)


@needs_demo
def test_a_wrong_answer_ends_the_timing(monkeypatch):
    from fastconv.bench import peers
    from fastconv.cli.demo import timing

    right = peers.logical_reference
    monkeypatch.setattr("fastconv.bench.suite.logical_reference", lambda *case: right(*case) + 1)
    monkeypatch.setattr(timing, "CASES", [peers.Case("demo", "small", "3×3", 3, 5, 6, 3, padding=1)])
    with pytest.raises(cli.CommandError, match=r"fastconv: .* of small"):
        timing.measure(quick=True, show=False)


@needs_demo
def test_a_quick_demo_leaves_pictures_and_a_report(tmp_path, capsys):
    figures = tmp_path / "figures.json"
    assert cli.main(["demo", "--quick", "--output", str(tmp_path), "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    told = json.loads(figures.read_text())
    assert 0 < told["accuracy"] <= 1 and [row["pass_name"] for row in told["timing"]] == ["eager", "dx", "dw"]
    assert told["sections"]["2. Digits"] and told["quick"] is True and told["report"] == str(tmp_path / "report.txt")
    report = (tmp_path / "report.txt").read_text()
    assert all(line in out for line in report.splitlines())
    for word in ("SAME", "accuracy", "one pass", "im2col + BLAS", "weight gradient"):
        assert word in report
    for name in ("convolutions", "training", "predictions", "page"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (tmp_path / f"{name}.png").stat().st_size > 20_000


@pytest.mark.parametrize("order, built, wanted", [
    ("channels_first", (3, 8, 8), (1, 3, 6, 10)), ("channels_last", (8, 8, 3), (1, 6, 10, 3)),
])  # fmt: skip
def test_an_image_size_is_that_of_the_rows_and_columns(order: str, built: Any, wanted: Any) -> None:
    """Also of a net in a net, whose first layer says where the channels are."""
    from fastconv.cli.given import _of_layers

    inner = fastconv.Sequential([fastconv.layers.Conv2D(4, 3, data_format=order)], data_format=order)
    behind = [fastconv.layers.Activation("relu"), fastconv.layers.Conv2D(4, 3, data_format=order)]
    for net in (inner, fastconv.Sequential([inner], data_format=order), fastconv.Sequential(behind)):
        net.build((None, *built))
        assert _of_layers("net", net, (6, 10), None).feeds["input"].shape == wanted
