"""The gallery of nets: its pictures are those of the nets, and small."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from fastconv.cli.given import given_model

DOCS = Path(__file__).parents[2] / "docs"
MOST_BYTES = 600_000
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def nets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery_of_nets", DOCS / "nets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_net_has_a_section_and_a_small_picture(nets: ModuleType) -> None:
    text = (DOCS / "nets.md").read_text(encoding="utf-8")
    assert re.findall("^## (.+)$", text, re.MULTILINE) == [entry.name for entry in nets.ENTRIES]
    assert {path.stem for path in (DOCS / "nets").glob("*.svg")} == {entry.file for entry in nets.ENTRIES} | {"legend"}
    assert sum(path.stat().st_size for path in (DOCS / "nets").iterdir()) < MOST_BYTES
    for entry in nets.ENTRIES:
        drawn = ElementTree.fromstring((DOCS / "nets" / f"{entry.file}.svg").read_text(encoding="utf-8"))
        assert f"{len(drawn.findall(f'{SVG}rect'))} steps that compute" in text.partition(f"## {entry.name}\n")[2]
        right = max(float(block.get("x", 0)) + float(block.get("width", 0)) for block in drawn.findall(f"{SVG}rect"))
        assert right <= float(drawn.get("width", 0)) <= nets.WIDTH + 10


def test_pictures_and_figures_are_drawn_anew_alike(nets: ModuleType) -> None:
    text = (DOCS / "nets.md").read_text(encoding="utf-8")
    assert text.startswith(nets.OPENING) and nets.legend() == (DOCS / "nets" / "legend.svg").read_text(encoding="utf-8")
    for entry in nets.ENTRIES:
        if entry.file == "dcgan_generator":  # of the others some take seconds
            profile = entry.profile()
            drawn = (DOCS / "nets" / f"{entry.file}.svg").read_text(encoding="utf-8")
            assert nets.picture(profile, entry.name) == drawn
            assert nets.figures(profile) in text


def test_a_block_is_as_high_as_its_pixels(nets: ModuleType) -> None:
    profile = given_model("mnist_net").profile(1)
    found = nets.blocks(profile)
    assert [step.shape for step, _, _ in found] == [(1, 32, 28, 28), (1, 64, 14, 14), (1, 64, 7, 7), (1, 10), (1, 10)]
    heights = [height for _, _, height in found]
    assert heights[0] == nets.TALL and heights[-1] == nets.LEAST_TALL
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2])  # half the side each
    assert nets.channels_and_pixels((1, 56, 56, 96)) == (96, 3136) and nets.channels_and_pixels((2, 5)) == (5, 1)
