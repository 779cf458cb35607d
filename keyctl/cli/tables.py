"""Draw rows as a table: for eyes on a terminal, whole and aligned in a pipe, as CSV for a sheet."""

import csv
import io
import itertools
import shutil
import string
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import NoneType
from typing import Any, Final, Literal

from keyctl import jsontext
from keyctl.cli import screen
from keyctl.cli.console import Console, one_line

Kind = Literal["id", "text", "state", "flag", "money", "spent", "instant", "number"]
_GAP: Final = "  "
# A text takes so much of the line before columns are dropped for it.
_ENOUGH: Final = 24
_LEFT_OUT: Final = 99


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    `rank` says how soon it is dropped where a terminal is narrow: 0 never, the highest first.
    An `id` is never cut, any other text may be, down to `enough` characters before columns are
    dropped; one that `wraps` goes on in the next lines instead.
    """

    name: str
    title: str = ""
    kind: Kind = "text"
    rank: int = 1
    enough: int = _ENOUGH
    wraps: bool = False

    @property
    def heading(self) -> str:
        """Return what stands over it on a terminal."""
        return self.title or self.name


def pipe_only(name: str, kind: Kind = "text") -> Column:
    """Return a column that no terminal shows: another one says the same there."""
    return Column(name, kind=kind, rank=_LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a list is shown: the name it has in JSON, its columns, and those that only `wide` adds.

    Without a name the JSON document is the array itself.
    """

    plural: str
    columns: tuple[Column, ...]
    wide: tuple[Column, ...] = ()
    nothing: str = ""  # what a terminal is told where there is no row; else "no" and the name

    def named(self, name: str) -> Column | None:
        """Return the column of this name or heading, None where the layout has none."""
        for column in (*self.columns, *self.wide):
            if name in (column.name, column.heading):
                return column
        return None


def show_table(
    console: Console,
    columns: Sequence[Column | str],
    rows: Sequence[dict[str, Any]],
    *,
    now: datetime | None = None,
    every: bool = False,
) -> list[str]:
    """Write *rows* with a heading, and return the headings of what the rows have and nobody sees.

    On a terminal *now* makes dates short; columns that have no room are left out, unless *every*
    one is wanted.
    """
    chosen = [Column(item) if isinstance(item, str) else item for item in columns]
    if not console.is_terminal:
        headings = [column.name for column in chosen]
        if not console.colour and (text := _aligned(headings, rows)) is not None:
            console.write(text)
            return []
        cells = [[_whole(row.get(column.name), column) for column in chosen] for row in rows]
        console.write(_drawn(console, headings, cells, _widths(headings, cells)))
        return []
    chosen = [column for column in chosen if column.rank != _LEFT_OUT or every]
    headings = [column.heading for column in chosen]
    cells = [
        [_seen(row, column, now, ascii_only=console.ascii) for column in chosen] for row in rows
    ]
    widths = _widths(headings, cells)
    room = _LEFT_OUT * 1000 if every else shutil.get_terminal_size().columns
    kept = _fitted(chosen, widths, room)
    index = [position for position, _ in kept]
    text = _drawn(
        console,
        [headings[position] for position in index],
        _wrapped(
            [chosen[position] for position in index],
            [[line[position] for position in index] for line in cells],
            [width for _, width in kept],
        ),
        [width for _, width in kept],
    )
    console.write(text)
    return [
        heading
        for position, heading in enumerate(headings)
        if position not in index and any(line[position][0] for line in cells)
    ]


def _aligned(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str | None:
    """Return a table without colours, None where a character is not as wide as any other.

    Of hundreds of thousands of rows, five times as fast as cell by cell.
    """
    cells = [[name, *map(one_line, _texts(name, rows))] for name in names]
    if not all(map(str.isascii, map("".join, cells))):
        return None
    padded = [[text.ljust(width) for text in column] for column, width in _with_widths(cells)]
    return "".join([f"{_GAP.join(line).rstrip()}\n" for line in zip(*padded, strict=True)])


def _with_widths(columns: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], int]]:
    return [(column, max(map(len, column))) for column in columns]


def _texts(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the texts of a column.  Most columns of most lists hold nothing, or texts as they are."""
    values = [row.get(name) for row in rows]
    kinds = set(map(type, values))
    if kinds <= {NoneType}:
        return [""] * len(values)
    if kinds == {str}:
        return values  # type: ignore[return-value]  # as the kinds say
    return list(map(cell, values))


_HARMLESS: Final = frozenset(string.ascii_letters + string.digits)
_SIGNS: Final = ("=", "+", "-", "@", "\N{MINUS SIGN}")


def csv_text(columns: Sequence[str], rows: Sequence[dict[str, Any]], *, heading: bool) -> str:
    """Return *rows* as CSV."""
    cells = [[_inert(text) for text in _texts(name, rows)] for name in columns]
    shown = list(zip(*cells, strict=True))
    lines = [columns, *shown] if heading else shown
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    text = out.getvalue()
    return text if "\r" not in text else "".join(map(_csv_line, lines))


def _csv_line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    # The module quotes what is in the line's end; a bare carriage return would begin a row of its own.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


def cell(value: Any) -> str:
    """Return *value* as the text of one cell."""
    if value is None:
        return ""
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return screen.instant(value)
    if isinstance(value, (list, tuple)):
        return ",".join(cell(item) for item in value)
    if isinstance(value, dict):
        return jsontext.dumps(value)
    return str(value)


def _whole(value: Any, column: Column) -> tuple[str, str]:
    return one_line(cell(value)), screen.STATES.get(value, "") if column.kind == "state" else ""


def _seen(
    row: dict[str, Any], column: Column, now: datetime | None, *, ascii_only: bool
) -> tuple[str, str]:
    """Return a cell as a person reads it, and its colour."""
    text, colour = _for_eyes(row, column, now)
    return screen.plain(text) if ascii_only else text, colour


def _for_eyes(row: dict[str, Any], column: Column, now: datetime | None) -> tuple[str, str]:
    value = row.get(column.name)
    if value is None:
        return "", ""
    if column.kind == "spent":
        return screen.budget(value, row.get("max_budget"))
    if column.kind == "money":
        return screen.money(value), ""
    if column.kind == "flag":
        colour = "red" if column.name == "blocked" else ""
        return (column.heading, colour) if value else ("", "")
    if column.kind == "instant" and now is not None and isinstance(value, datetime):
        return screen.when(value, now), ""
    text, colour = _whole(value, column)
    return text, "cyan" if column.kind == "id" else colour


def _fitted(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Return which columns a line of *room* has place for, and how wide each of them is."""
    narrow = [
        min(width, max(column.enough, len(column.heading))) if column.kind == "text" else width
        for column, width in zip(columns, widths, strict=True)
    ]
    kept = list(range(len(columns)))
    while _length([narrow[index] for index in kept]) > room:
        droppable = [index for index in kept if columns[index].rank]
        if not droppable or len(kept) == 1:
            break
        kept.remove(max(droppable, key=lambda index: (columns[index].rank, index)))
    spare = max(0, room - _length([narrow[index] for index in kept]))
    fitted = []
    for index in kept:
        more = min(spare, widths[index] - narrow[index])
        spare -= more
        fitted.append((index, narrow[index] + more))
    return fitted


def _length(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * max(0, len(widths) - 1)


def _widths(headings: Sequence[str], cells: Sequence[Sequence[tuple[str, str]]]) -> list[int]:
    return [
        max([_width(heading), *(_width(line[index][0]) for line in cells)])
        for index, heading in enumerate(headings)
    ]


def _drawn(
    console: Console,
    headings: Sequence[str],
    cells: Sequence[Sequence[tuple[str, str]]],
    widths: Sequence[int],
) -> str:
    heading = [(text, "bold") for text in headings]
    lines = []
    for line in (heading, *cells):
        last = len(line) - 1
        parts = []
        for index, ((text, colour), width) in enumerate(zip(line, widths, strict=True)):
            shown = _cut(text, width, console)
            padding = "" if index == last else " " * (width - _width(shown))
            painted = screen.paint(shown, colour) if colour and console.colour else shown
            parts.append(f"{painted}{padding}")
        lines.append(_GAP.join(parts).rstrip())
    return "\n".join(lines) + "\n"


def _wrapped(
    columns: Sequence[Column],
    cells: Sequence[Sequence[tuple[str, str]]],
    widths: Sequence[int],
) -> list[list[tuple[str, str]]]:
    """Return the lines of a table in which long cells of columns that wrap take several."""
    if not any(column.wraps for column in columns):
        return [list(line) for line in cells]
    lines = []
    for line in cells:
        parts = [
            [(part, colour) for part in textwrap.wrap(text, width)]
            if column.wraps
            else [(text, colour)]
            for column, (text, colour), width in zip(columns, line, widths, strict=True)
        ]
        lines += [list(row) for row in itertools.zip_longest(*parts, fillvalue=("", ""))]
    return lines


def _cut(text: str, width: int, console: Console) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return f"{text}{'~' if console.ascii else '…'}"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _inert(text: str) -> str:
    """Return *text* so that no spreadsheet takes it for a formula: behind an apostrophe where one might.

    Spreadsheets pass over blanks and invisible characters in front, and read full-width signs as signs.
    """
    if not text or text[0] in _HARMLESS:
        return text
    start = next((char for char in text if unicodedata.category(char)[0] not in "ZC"), "")
    signed = unicodedata.normalize("NFKC", start)[:1] in _SIGNS
    return f"'{text}" if text and (signed or text[0] in "\t\r\n") else text
