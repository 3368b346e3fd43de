"""The parts of a page: escaped text, tables that can be sorted, the frame with its style and script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any, Final

# Nothing may be loaded, whatever a name that came from a file managed to smuggle in.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
DASH: Final = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, what a row shows (HTML) and by what it is sorted; `hint` says what it means, a
    `long` one holds sentences, and that of the `name` heads the rows."""

    head: str
    cell: Callable[[Any], str]
    key: Callable[[Any], float] | None = None
    hint: str = ""
    long: bool = False
    name: bool = False


def text(words: object) -> str:
    """As text of HTML, also between quotes; what is no character becomes a sign for it."""
    plain = str(words).encode("utf-8", "replace").decode("utf-8")
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in plain), quote=True)


def amount(number: float, digits: int = 3) -> str:
    """So many digits, or a dash for what is not known."""
    if not math.isfinite(number):
        return DASH
    if number == 0 or abs(number) >= 10 ** (digits - 1):
        return f"{number:,.0f}"
    return f"{number:.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"


def milliseconds(seconds: float) -> str:
    """Without a unit; four digits behind the point at most."""
    return DASH if not math.isfinite(seconds) else f"{1e3 * seconds:.4f}" if seconds < 1e-4 else amount(1e3 * seconds)


def share(part: float) -> str:
    """In percent."""
    return f"{100 * part:.1f}" if math.isfinite(part) else DASH


def size(count: float) -> str:
    """Bytes in a readable unit."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{amount(count / one)} {unit}"
    return f"{count:.0f} bytes"


def bar(part: float, colour: str = "") -> str:
    """A bar of a length between 0 and 1, behind a number that says the same."""
    width = 100 * min(1.0, max(0.0, part)) if math.isfinite(part) else 0.0
    style = f"width:{width:.1f}%" + (f";background:var(--{colour})" if colour else "")
    return f'<span class="bar" aria-hidden="true"><i style="{style}"></i></span>'


def chip(colour: str) -> str:
    """A patch of a colour of the pictures."""
    return f'<i class="chip" style="background:var(--{colour})" aria-hidden="true"></i>'


def cards(facts: Sequence[tuple[str, str, str]]) -> str:
    """Figures to be read first: (what, how much and its unit, a remark)."""
    parts = []
    for what, much, remark in facts:
        number, _, unit = much.partition(" ")
        shown = text(number) + (f" <small>{text(unit)}</small>" if unit else "")
        parts.append(f'<div><dt>{text(what)}</dt><dd>{shown}</dd><dd class="note">{text(remark)}</dd></div>')
    return f'<dl class="cards">{"".join(parts)}</dl>'


def table(
    name: str, caption: str, columns: Sequence[Column], rows: Sequence[Any], anchor: str = "", small: bool = False
) -> str:
    """A table with a head that sorts; row i is `#anchor-i`, and on narrow screens a card of its own, unless `small`."""
    heads = []
    for column in columns:
        hint = f' title="{text(column.hint)}"' if column.hint else ""
        kind = ' class="number" data-sort="number"' if column.key else ' data-sort="text"'
        heads.append(f'<th role="columnheader" scope="col"{kind}{hint}>{text(column.head)}</th>')
    body = "".join(_row(columns, row, f' id="{anchor}-{at}"' if anchor else "") for at, row in enumerate(rows, 1))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}">'
        f'<table id="{name}" role="table" class="{"small" if small else "large"}"><caption>{text(caption)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{"".join(heads)}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _row(columns: Sequence[Column], row: Any, anchor: str) -> str:
    cells = []
    for column in columns:
        value = ' class="why"' if column.long else ""
        if column.key:
            key = column.key(row)
            value = f' class="number" data-value="{key if math.isfinite(key) else -math.inf!r}"'
        tag, role = ("th", ' role="rowheader" scope="row"') if column.name else ("td", ' role="cell"')
        cells.append(f'<{tag}{role} data-label="{text(column.head)}"{value}><div>{column.cell(row)}</div></{tag}>')
    return f'<tr role="row"{anchor}>{"".join(cells)}</tr>\n'


def section(heading: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return f"<section><h2>{text(heading)}</h2>{''.join(parts)}</section>\n"


def paragraph(words: str) -> str:
    """Plain text."""
    return f"<p>{text(words)}</p>"


def document(title: str, subtitles: Sequence[str], *body: str) -> str:
    """The page."""
    here = files(__package__)
    style, script = ((here / f"page.{ending}").read_text(encoding="utf-8") for ending in ("css", "js"))
    lines = "".join(f'<p class="subtitle">{text(line)}</p>' for line in subtitles)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header><h1>{text(title)}</h1>{lines}</header>\n<main>\n{''.join(body)}</main>\n"
        f'<div id="tip" role="status" hidden></div>\n<script>\n{script}</script>\n</body>\n</html>\n'
    )
