"""The commands `summary` and `completion`, and what --json does in all of them."""

import argparse
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fastconv import cli, models
from fastconv.cli import common
from fastconv.errors import ConvError
from fastconv.models.catalogue import CATALOGUE, from_catalogue

# ---- summary ---------------------------------------------------------------------------------------------------------


def test_summary_of_vgg16_has_the_papers_numbers(capsys):
    assert cli.main(["summary", "vgg16"]) == 0
    out = capsys.readouterr().out
    for number in ("138,357,544", "15,470,264,320", "102,764,544", "60.95 MB"):
        assert number in out
    assert out.strip() == str(models.vgg("D").table())


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_model_has_a_summary(name, capsys):
    assert cli.main(["summary", name, "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    made = from_catalogue(name)
    assert said["total"]["parameters"] == made.count_params()
    assert said["total"]["macs"] == sum(layer["macs"] for layer in said["layers"]) > 0
    assert said["layers"][0]["kind"] == "Input"


def test_the_catalogue_makes_all_models_of_the_package():
    makers = {getattr(maker, "func", maker) for maker in CATALOGUE.values()}
    assert makers == {getattr(models, name) for name in models.__all__ if name not in ("Input", "Model", "Sequential")}


@pytest.mark.parametrize("name", ["VGG16", "vgg-16", "Vgg_16"])
def test_names_are_read_generously(name):
    assert from_catalogue(name).name == "vgg_d"


def test_summary_for_other_images_and_classes(capsys):
    assert cli.main(["summary", "resnet18", "--input-size", "64x96", "--classes", "7", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert layers[0]["output_shape"] == [64, 96, 3] and layers[-1]["output_shape"] == [7]
    assert cli.main(["summary", "mlp", "--input-size", "5x8", "--json"]) == 0  # keeps its one channel
    assert json.loads(capsys.readouterr().out)["layers"][0]["output_shape"] == [5, 8, 1]


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["alexnet"], 1, "no model is named 'alexnet'; there are vgg11, "),
        ([], 2, "MODEL"),
        (["vgg16", "--input-size", "0"], 2, "--input-size"),
        (["vgg16", "--input-size", "1x2x3"], 2, "1x2x3"),
        (["vgg16", "--classes", "0"], 2, "0 is below 1"),
        (["vgg16", "--input-size", "8"], 1, "block4_pool"),
        (["dcgan_generator", "--classes", "3"], 1, "has no classes"),
        (["dcgan_generator", "--input-size", "32x64"], 1, "square"),
        (["dcgan_generator", "--input-size", "33"], 1, "33"),
        (["mlp", "--json", "/no/such/folder/file.json"], 1, "does not exist"),
    ],
    ids=str,
)
def test_summary_says_what_is_wrong_in_one_line(arguments, status, words, capsys):
    assert cli.main(["summary", *arguments]) == status
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and out == ""


def test_an_unknown_model_names_them_all():
    with pytest.raises(ConvError) as caught:
        from_catalogue("lenet")
    assert all(name in str(caught.value) for name in CATALOGUE)


@pytest.fixture
def onnx_file(tmp_path):
    """A convolution and a pooling; `make(shape)` declares that input."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper

    def make(shape):
        weight = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["y"]),
        ]  # fmt: skip
        values = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
            for name, dims in (("x", shape), ("y", None))
        ]
        graph = helper.make_graph(nodes, "net", values[:1], values[1:], [weight])
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
        return str(path)

    return make


def test_summary_of_an_onnx_file(onnx_file, capsys):
    path = onnx_file(["n", 3, "h", "w"])
    assert cli.main(["summary", path, "--input-size", "6x8"]) == 0
    out = capsys.readouterr().out
    assert "1 x 4 x 6 x 8" in out and "GlobalAveragePool" in out and "2 steps of 3 nodes" in out
    assert cli.main(["summary", path, "--input-size", "6x8", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs"] == {"x": [1, 3, 6, 8]} and said["nodes"] == 3
    assert [step["output_shape"] for step in said["steps"]] == [[1, 4, 6, 8], [1, 4, 1, 1]]
    assert said["constant_bytes"] == 4 * 4 * 27 and "Relu" in said["steps"][0]["operators"]


@pytest.mark.parametrize(
    "shape, arguments, words",
    [
        ([1, 3, "h", "w"], [], "give the open sides with --input-size"),
        ([1, 3, 8, 8], ["--input-size", "9"], "takes no --input-size 9"),
        ([1, 3, 8, 8], ["--classes", "9"], "--classes is for the models of fastconv"),
        (None, ["--input-size", "9"], "declares no shape"),
    ],
    ids=str,
)
def test_summary_of_an_onnx_file_says_what_is_missing(shape, arguments, words, onnx_file, capsys):
    assert cli.main(["summary", onnx_file(shape), *arguments]) == 1
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and out == ""


def test_summary_of_an_absent_onnx_file(capsys):
    pytest.importorskip("onnx")
    assert cli.main(["summary", "absent.onnx"]) == 1
    assert "absent.onnx" in capsys.readouterr().err


# ---- completion ------------------------------------------------------------------------------------------------------


def script(shell, capsys):
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_commands_options_and_models(shell, capsys):
    text = script(shell, capsys)
    for word in (*cli.COMMANDS, *CATALOGUE, "input-size", "torch-model", "resnet18_cifar", "seed"):
        assert word in text, word


@pytest.mark.parametrize(
    "line, expected",
    [
        (["fastconv", "sum"], {"summary"}),
        (["fastconv", "summary", "vgg1"], {"vgg11", "vgg11_lrn", "vgg13", "vgg16", "vgg16_1x1", "vgg19"}),
        (["fastconv", "check", "--ca"], {"--cases"}),
        (["fastconv", "completion", ""], {"bash", "zsh", "fish"}),
        (["fastconv", "bench", "--torch-model", "cifar"], {"cifar_vgg"}),
        (["fastconv", "run", "mod"], {"model.onnx"}),
    ],
    ids=" ".join,
)
def test_bash_completes(line, expected, tmp_path, capsys):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    (tmp_path / "script.sh").write_text(script("bash", capsys))
    (tmp_path / "model.onnx").write_text("")
    words = " ".join(repr(word) for word in line)
    ask = (
        f"source ./script.sh; COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}; "
        "$(complete -p fastconv | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run([bash, "-c", ask], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stderr == "" and expected <= set(done.stdout.split())
    assert all(word.startswith(line[-1]) for word in done.stdout.split())


@pytest.mark.parametrize(("shell", "check"), [("zsh", ["-n"]), ("fish", ["--no-execute"])])
def test_other_shells_read_the_script(shell, check, tmp_path, capsys):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    path = tmp_path / "script"
    path.write_text(script(shell, capsys))
    done = subprocess.run([program, *check, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""


def test_completion_without_shtab_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 1
    assert "pip install fastconv[completion]" in capsys.readouterr().err


def test_completion_of_an_unknown_shell(capsys):
    assert cli.main(["completion", "cmd"]) == 2
    err = capsys.readouterr().err
    assert "'cmd'" in err and "bash" in err and err.count("\n") == 1


# ---- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "completion"])
def test_every_command_that_reports_has_json(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert "--json [FILE]" in capsys.readouterr().out


def test_json_into_a_file_leaves_the_table(tmp_path, capsys):
    for command in (["info"], ["check", "--cases", "4"], ["summary", "mlp"]):
        cli.main([*command, "--json", "-"])
        alone = capsys.readouterr().out
        path = tmp_path / f"{command[0]}.json"
        assert cli.main([*command, "--json", str(path)]) == 0
        assert json.loads(path.read_text()).keys() == json.loads(alone).keys()
        shown = capsys.readouterr().out
        assert shown and not shown.lstrip().startswith("{")


def test_json_has_no_infinities(capsys):
    common.write_json({"a": [1.5, float("inf")], "b": (float("nan"), "x", None)}, common.STDOUT)
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None], "b": [None, "x", None]}
    common.write_json({"a": 1}, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", [["info"], ["check", "--cases", "1"]])
def test_json_that_cannot_be_written_is_one_line(command, tmp_path, capsys):
    assert cli.main([*command, "--json", str(tmp_path)]) == 1  # a folder
    err = capsys.readouterr().err
    assert str(tmp_path) in err and err.count("\n") == 1


def test_help_of_every_option_says_something():
    parser = cli.build_parser(cli.COMMANDS)
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    for name, command in commands.items():
        assert command.description, name
        for action in command._actions:
            assert action.help and len(action.help) > 5, (name, action.option_strings or action.dest)
