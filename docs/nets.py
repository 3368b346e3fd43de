"""The pictures and figures of the gallery of nets: `python docs/nets.py` draws docs/nets/*.svg and writes docs/nets.md.

A picture is the net as it runs: a block for each step, as high as its result has pixels, as wide as it has channels
(both by doublings), coloured by what the step does. Nothing in it is measured, so that it comes out
the same on every machine.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from math import log2, prod
from pathlib import Path
from typing import Final

from fastconv.cli.given import given_model
from fastconv.graph.summary import Profile, StepTime

HERE: Final = Path(__file__).resolve().parent
WIDTH, TALL, TOP, GAP = 660, 150, 10, 1.2  # pixels: of the picture, of its highest block, above it, between blocks
LEAST_WIDE, WIDE_A_DOUBLING, LEAST_TALL, MOST_STRETCHED = 3.0, 2.2, 5.0, 2.0
READ: Final = "#7b8490"  # text that is readable on light and dark pages
FAMILIES: Final = {  # what a step does: (operators, colour on a light screen, on a dark one)
    "convolution": (("Conv",), "#0072b2", "#4da3e0"),
    "transposed convolution": (("ConvTranspose",), "#3a97c9", "#93d0f2"),
    "matrix product": (("Dense", "MatMul", "Gemm"), "#b5568d", "#e08fc0"),
    "pooling": (("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"), "#d55e00", "#f0834d"),
    "joined, moved, resized": (
        ("Concat", "Split", "Slice", "Pad", "Transpose", "Reshape", "Resize", "DepthToSpace"), "#00805f", "#3cc29b",
    ),
    "element by element, normalised": ((), "#b07800", "#e5b444"),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A net of the gallery: the file of its picture, what it is for, and how it is named in commands."""

    file: str
    name: str
    about: str
    profile: Callable[[], Profile]
    command: str


def ours(name: str, title: str, about: str) -> Entry:
    """A net of `fastconv.models`."""
    command = f"fastconv profile {name} --html {name}.html"
    return Entry(name, title, about, lambda: given_model(name).profile(1), command)


def zoo(name: str, about: str) -> Entry:
    """A net that the benchmark builds as an ONNX file."""
    file = re.sub(r"\W+", "_", name.lower())
    command = f'fastconv bench --nets --only "{name}" --html {file}.html'
    return Entry(file, name, about, lambda: _of_the_zoo(name), command)


def _of_the_zoo(name: str) -> Profile:
    from fastconv.bench.zoo.catalogue import select_zoo
    from fastconv.onnx import InferenceSession

    (net,) = (one for one in select_zoo(None) if one.name == name)
    graph = net.build(1)
    return InferenceSession(graph.model()).profile({"x": graph.feeds()}, 1)


ENTRIES: Final = (
    ours("vgg16", "VGG-16", "3×3 convolutions alone, halved by pooling (Simonyan and Zisserman, 2014)"),
    ours("resnet50", "ResNet-50", "bottlenecks with shortcuts (He et al., 2015)"),
    ours("dcgan_generator", "DCGAN's generator", "from noise to an image (Radford et al., 2015)"),
    zoo("MobileNetV2", "depthwise convolutions between narrow ones (Sandler et al., 2018)"),
    zoo("GoogLeNet", "four branches side by side, joined (Szegedy et al., 2014)"),
    zoo("DenseNet-121", "every layer reads all before it (Huang et al., 2016)"),
    zoo("ConvNeXt-T", "7×7 depthwise convolutions and GELU (Liu et al., 2022)"),
    zoo("YOLOv8n", "finds objects at three scales (Ultralytics, 2023)"),
    zoo("U-Net", "down and up again, for a label a pixel (Ronneberger et al., 2015)"),
    zoo("Style transfer", "paints a picture in a style (Johnson et al., 2016)"),
    zoo("HiFi-GAN V2", "from a spectrogram to speech, in one dimension (Kong et al., 2020)"),
)


# ---- pictures --------------------------------------------------------------------------------------------------------


def family_of(step: StepTime) -> int:
    """The number of the family of a step."""
    return next((at for at, (names, _, _) in enumerate(FAMILIES.values()) if step.operator in names), len(FAMILIES) - 1)


def blocks(profile: Profile) -> list[tuple[StepTime, float, float]]:
    """The steps that compute something, with the width and height of each in pixels."""
    steps = [step for step in profile.steps if step.moved_bytes and len(step.shape) > 1]
    sizes = [channels_and_pixels(step.shape) for step in steps]
    wide = [LEAST_WIDE + WIDE_A_DOUBLING * log2(channels) for channels, _ in sizes]
    sides = [log2(pixels) for _, pixels in sizes]
    scale = min(MOST_STRETCHED, (WIDTH - 20 - GAP * len(steps)) / sum(wide))
    tall = (TALL - LEAST_TALL) / max(*sides, 1)
    return [(step, scale * w, LEAST_TALL + tall * side) for step, w, side in zip(steps, wide, sides, strict=True)]


def channels_and_pixels(shape: tuple[int, ...]) -> tuple[int, int]:
    """Of one sample; the channels are last where the other two sides of an image are equal and not theirs."""
    last = len(shape) == 4 and shape[1] == shape[2] != shape[3]
    channels = shape[-1] if last else shape[1]
    return max(1, channels), max(1, prod(shape[1:]) // max(1, channels))


def style() -> str:
    """Colours of families, on light and dark screens."""
    light = "".join(f".f{at}{{fill:{colour}}}" for at, (_, colour, _) in enumerate(FAMILIES.values()))
    dark = "".join(f".f{at}{{fill:{colour}}}" for at, (_, _, colour) in enumerate(FAMILIES.values()))
    return f"<style>{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"


def picture(profile: Profile, name: str) -> str:
    """The net as SVG."""
    parts, x = [], 10.0
    for step, width, height in blocks(profile):
        told = f"{step.operators}: {' × '.join(map(str, step.shape))}"
        parts.append(
            f'<rect class="f{family_of(step)}" x="{x:.1f}" y="{TOP + (TALL - height) / 2:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="1"><title>{escape(told)}</title></rect>'
        )
        x += width + GAP
    box = f"0 0 {x + 10:.0f} {TALL + 2 * TOP}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{x + 10:.0f}" height="{TALL + 2 * TOP}" '
        f'role="img" aria-label="{escape(name)}, step by step">{style()}\n' + "\n".join(parts) + "\n</svg>\n"
    )


def legend() -> str:
    """What the colours mean, as a picture of its own."""
    parts = []
    for at, name in enumerate(FAMILIES):
        x, y = 10 + 220 * (at % 3), 16 + 24 * (at // 3)
        parts.append(f'<rect class="f{at}" x="{x}" y="{y - 11}" width="14" height="14" rx="2"/>')
        font = f'font-family="sans-serif" font-size="13" fill="{READ}"'
        parts.append(f'<text x="{x + 22}" y="{y + 1}" {font}>{name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 52" width="{WIDTH}" height="52" role="img" '
        f'aria-label="colours of the steps">{style()}\n' + "\n".join(parts) + "\n</svg>\n"
    )


# ---- the page --------------------------------------------------------------------------------------------------------

OPENING: Final = """\
# Gallery of nets

Nets as they run: a block for each step, after layers have been fused, as high as its result has pixels and as wide as
it has channels, both by doublings. `python docs/nets.py` draws the pictures and writes the figures; nothing here
depends on the machine.

![blue: convolution, light blue: transposed convolution, pink: matrix product, orange: pooling, green: joined, moved or
resized, yellow: element by element or normalised](nets/legend.svg)

`fastconv profile NET --html FILE` shows a net on your machine, with times, algorithms and memory, as a page like this:

[![A page: figures at a glance, kinds of steps, and the steps over time](nets/profile.png)](networks.md)

(A photograph of the page, from a machine that was busy with other work: times and peak alike are low.)

What the layers of such nets are is answered by the [examples](gallery/index), with tables and pictures.
"""


def figures(profile: Profile) -> str:
    """A net's figures in a line."""
    field = next((step.field for step in reversed(profile.steps) if step.field), ())
    macs = sum(step.macs for step in profile.steps)
    parts = [f"{1e-9 * macs:.2f} G multiply-adds", f"{len(blocks(profile))} steps that compute"]
    if field:
        parts.append(f"a receptive field of {' × '.join(map(str, dict.fromkeys(field)))} pixels")
    return ", ".join(parts) + "."


def main(folder: Path = HERE) -> int:
    pictures = folder / "nets"
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / "legend.svg").write_text(legend(), encoding="utf-8")
    parts = [OPENING]
    for entry in ENTRIES:
        profile = entry.profile()
        (pictures / f"{entry.file}.svg").write_text(picture(profile, entry.name), encoding="utf-8")
        parts.append(
            f"## {entry.name}\n\n{entry.about[0].upper()}{entry.about[1:]}. {figures(profile)}\n\n"
            f"![{entry.name} as blocks](nets/{entry.file}.svg)\n\n    {entry.command}\n"
        )
    (folder / "nets.md").write_text("\n".join(parts), encoding="utf-8")
    print(f"{folder / 'nets.md'}: {len(ENTRIES)} nets")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
