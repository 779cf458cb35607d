"""Show rows as a table: Rich on a terminal, plain columns in a pipe."""

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from keyctl import jsontext
from keyctl.cli.console import Console


def show_table(console: Console, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write *rows* with a heading."""
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    if not console.is_terminal:
        widths = [
            max(len(name), *(len(line[index]) for line in cells)) if cells else len(name)
            for index, name in enumerate(columns)
        ]
        lines = [columns, *cells]
        text = "\n".join(
            "  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        console.write(f"{text}\n")
        return
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for line in cells:
        table.add_row(*(Text(part) for part in line))
    out = io.StringIO()
    RichConsole(file=out, force_terminal=True, width=_width()).print(table)
    console.write(out.getvalue())


def csv_text(columns: Sequence[str], rows: Sequence[dict[str, Any]], *, heading: bool) -> str:
    """Return *rows* as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if heading:
        writer.writerow(columns)
    for row in rows:
        # A cell that begins like a formula is one, for a spreadsheet.
        writer.writerow([_inert(cell(row.get(name))) for name in columns])
    return out.getvalue()


def cell(value: Any) -> str:
    """Return *value* as the text of one cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, (list, tuple)):
        return ",".join(cell(item) for item in value)
    if isinstance(value, dict):
        return jsontext.dumps(value)
    return str(value)


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "@", "\t", "\r")) else text


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
