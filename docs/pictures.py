"""The pictures of the page on algorithms, drawn as SVG: `python docs/pictures.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

CELL = 18  # pixels a side of one element
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6f7682"
BLACK = "#20262e"
Colours = dict[tuple[int, int], str]


def grid(x: int, y: int, rows: int, columns: int, colours: Colours | None = None) -> str:
    """A matrix of cells with its corner at (x, y), some of them coloured."""
    cells = []
    for i in range(rows):
        for j in range(columns):
            fill = (colours or {}).get((i, j), "none")
            cells.append(
                f'<rect x="{x + j * CELL}" y="{y + i * CELL}" width="{CELL}" height="{CELL}" fill="{fill}" '
                f'fill-opacity="0.55" stroke="{GREY}"/>'
            )
    return "".join(cells)


def text(x: int, y: int, words: str, colour: str = GREY) -> str:
    return f'<text x="{x}" y="{y}" font-family="sans-serif" font-size="13" fill="{colour}">{words}</text>'


def arrow(x: int, y: int, length: int, words: str) -> str:
    """A horizontal arrow with words above."""
    end = x + length
    return (
        f'<path d="M{x} {y} H{end} m-6 -4 l6 4 l-6 4" fill="none" stroke="{GREY}" stroke-width="1.5"/>'
        + text(x + 4, y - 6, words)
    )


def picture(width: int, height: int, *parts: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        + "".join(parts)
        + "</svg>\n"
    )


def box(top: int, left: int, rows: int, columns: int, colour: str) -> Colours:
    return {(i, j): colour for i in range(top, top + rows) for j in range(left, left + columns)}


def direct() -> str:
    window = box(0, 0, 8, 8, GREY) | box(1, 1, 6, 6, BLUE)
    return picture(
        640, 200,
        grid(10, 30, 8, 8, window), text(10, 20, "input under a tile, border filled in"),
        arrow(165, 100, 90, "one tap: a shift"),
        grid(270, 48, 6, 6, box(0, 0, 1, 6, BLUE)), text(270, 38, "pixels"),
        text(390, 106, "×"), grid(410, 84, 1, 6, box(0, 0, 1, 6, ORANGE)), text(410, 74, "weights of a panel"),
        arrow(525, 95, 35, "+="), grid(570, 66, 3, 3, box(0, 0, 3, 3, GREEN)), text(560, 56, "registers"),
    )  # fmt: skip


def winograd() -> str:
    return picture(
        640, 210,
        grid(10, 30, 6, 6, box(0, 0, 6, 6, BLUE)), text(10, 20, "6 × 6 inputs"),
        grid(40, 150, 3, 3, box(0, 0, 3, 3, ORANGE)), text(105, 182, "3 × 3 kernel"),
        arrow(130, 84, 80, "Bᵀ d B"), arrow(190, 178, 60, "G g Gᵀ"),
        grid(225, 30, 6, 6, box(0, 0, 6, 6, BLUE)), text(225, 20, "36 places"),
        grid(265, 150, 3, 3, box(0, 0, 3, 3, ORANGE)), text(325, 182, "36 places"),
        arrow(345, 84, 140, "36 matrix products"), arrow(490, 84, 50, "Aᵀ m A"),
        grid(555, 48, 4, 4, box(0, 0, 4, 4, GREEN)), text(555, 38, "4 × 4 outputs"),
    )  # fmt: skip


def lanes() -> str:
    return picture(
        640, 150,
        text(10, 20, "a row of the image; vectors of four lanes begin at every tap"),
        grid(10, 32, 1, 12, box(0, 0, 1, 4, BLUE)),
        grid(10, 62, 1, 12, box(0, 1, 1, 4, BLUE)),
        grid(10, 92, 1, 12, box(0, 2, 1, 4, BLUE)),
        text(240, 46, "× w[0]"), text(240, 76, "× w[1]"), text(240, 106, "× w[2]"),
        arrow(300, 70, 90, "summed"),
        grid(410, 62, 1, 4, box(0, 0, 1, 4, GREEN)), text(410, 52, "four neighbouring outputs"),
    )  # fmt: skip


def depthwise() -> str:
    colours = {(0, j): (BLUE, ORANGE, GREEN, GREY)[j] for j in range(4)}
    return picture(
        640, 130,
        text(10, 38, "channels of a pixel"), grid(10, 52, 1, 4, colours), text(112, 66, "×"),
        text(155, 38, "a tap's weights"), grid(155, 52, 1, 4, colours),
        arrow(245, 61, 110, "lane by lane"),
        text(375, 38, "sums of an output pixel, a channel a lane"), grid(375, 52, 1, 4, colours),
        text(10, 108, "no lane adds to another: every output channel has inputs of its own"),
    )  # fmt: skip


def phases() -> str:
    """At stride 2 an input row of even number meets taps 0 and 2, one of odd number tap 1; columns likewise."""
    taps = {(i, j): (BLUE, ORANGE, GREEN, GREY)[i % 2 * 2 + j % 2] for i in range(3) for j in range(3)}
    pixels = {(i, j): (BLUE, ORANGE, GREEN, GREY)[i % 2 * 2 + j % 2] for i in range(6) for j in range(6)}
    parts = []
    for number, (rows, columns, colour) in enumerate(((2, 2, BLUE), (2, 1, ORANGE), (1, 2, GREEN), (1, 1, GREY))):
        parts.append(grid(120 + 75 * number, 60, rows, columns, box(0, 0, rows, columns, colour)))
    return picture(
        640, 150,
        text(10, 20, "kernel 3 × 3"), grid(10, 48, 3, 3, taps), arrow(72, 75, 34, ""),
        text(120, 20, "four kernels, one a phase"), *parts,
        arrow(405, 75, 60, ""), text(480, 14, "input pixels by phase"), grid(490, 26, 6, 6, pixels),
    )  # fmt: skip


def step(x: int, y: int, words: str, colour: str, buffer: str) -> str:
    """A box with what is computed, and the buffer that its result lies in."""
    return (
        f'<rect x="{x}" y="{y}" width="128" height="34" rx="4" fill="{colour}" fill-opacity="0.35" stroke="{GREY}"/>'
        + text(x + 8, y + 22, words, BLACK) + text(x + 8, y + 52, buffer)
    )  # fmt: skip


def buffers() -> str:
    return picture(
        680, 130,
        step(10, 50, "x", BLUE, "buffer 1"), arrow(140, 67, 38, ""),
        step(180, 50, "conv + bn + relu", ORANGE, "buffer 2"), arrow(310, 67, 38, ""),
        step(350, 50, "conv + bn + relu", GREEN, "buffer 3"), arrow(480, 67, 38, ""),
        step(520, 50, "conv + bn, + x, relu", ORANGE, "buffer 2 again"),
        f'<path d="M74 48 V28 H584 V46 m-4 -6 l4 6 l4 -6" fill="none" stroke="{GREY}" stroke-width="1.5"/>',
        text(260, 20, "x lies in buffer 1 until it is added"),
    )  # fmt: skip


def draw(folder: Path) -> None:
    """All pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for made in (direct, winograd, depthwise, lanes, phases, buffers):
        (folder / f"{made.__name__}.svg").write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
