"""Show a list page by page, in the form that was asked for: one way for every list."""

import heapq
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from keyctl import nearest
from keyctl.cli import screen
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, cell, csv_text, show_table
from keyctl.errors import UsageError

OUTPUTS: Final = ("auto", "json", "jsonl", "csv", "table", "wide")
_MOST: Final = 10_000
_BATCH: Final = 2000

Row = dict[str, Any]
# What gives a page: behind which cursor, and how many rows at the most.
Fetch = Callable[[Any, int], tuple[Sequence[Row], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list is wanted, and how it is shown."""

    columns: str | None = None
    sort: str | None = None
    limit: int | None = None
    after: str | None = None
    everything: bool = False


def options(layout: Layout, *, limit: int) -> list[inspect.Parameter]:
    """Return the options that every list has."""
    names = ", ".join(column.name for column in (*layout.columns, *layout.wide))
    declared: list[tuple[str, Any, Any, Any]] = [
        (
            "columns",
            str | None,
            None,
            typer.Option("--columns", help=f"Columns with commas between them, such as {names}."),
        ),
        (
            "sort",
            str | None,
            None,
            typer.Option("--sort", help="By this column; -COLUMN the largest first."),
        ),
        (
            "limit",
            int,
            limit,
            typer.Option("--limit", min=1, max=_MOST, help="How many rows to show at the most."),
        ),
        (
            "after",
            str | None,
            None,
            typer.Option("--after", help="Go on behind this cursor (`next`)."),
        ),
        ("everything", bool, False, typer.Option("--all", help="Every page.")),
    ]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, option],
        )
        for name, kind, default, option in declared
    ]


def show_list(session: Session, layout: Layout, page: Page, fetch: Fetch, **about: Any) -> None:
    """Show what *fetch* gives; a JSON document also has what is *about* the whole list.

    Pages go out as they come where the form allows it, so that a million rows need no memory.

    Raises:
        UsageError: A column does not exist, or --sort and --after were given together.
    """
    chosen = _chosen(layout, page, session.output)
    rows, following = _rows(layout, page, fetch)
    console = session.console
    if session.output == "jsonl":
        for batch in rows:
            console.lines(_picked(batch, page, chosen))
    elif session.output == "csv":
        names = [column.name for column in chosen]
        for number, batch in enumerate(rows):
            console.write(csv_text(names, batch, heading=number == 0))
    else:
        collected = [row for batch in rows for row in batch]
        if session.wants_json:
            shown = _picked(collected, page, chosen)
            whole = {**about, layout.plural: shown, "next": following()}
            console.json(whole if layout.plural else shown)
            return
        if console.is_terminal and not collected:
            console.note(layout.nothing or f"no {layout.plural}")
        else:
            _show_table(session, chosen, collected, page)
    if following() is not None:
        console.note(f"more: --after {following()}, or --all")


def _show_table(
    session: Session, chosen: Sequence[Column], rows: Sequence[Row], page: Page
) -> None:
    now = session.database.time() if session.console.is_terminal else None
    every = session.output == "wide" or page.columns is not None
    hidden = show_table(session.console, chosen, rows, now=now, every=every)
    if hidden:
        session.console.aside(f"hidden: {', '.join(hidden)}; -o wide shows all")


def whole(rows: Sequence[Row]) -> Fetch:
    """Return what gives pages of a list that is known whole; its cursor is the number of rows before."""

    def fetch(after: Any, limit: int) -> tuple[Sequence[Row], Any]:
        begin = int(after or 0)
        end = begin + limit
        return rows[begin:end], str(end) if end < len(rows) else None

    return fetch


def check_whole(layout: Layout, page: Page) -> None:
    """Refuse what a list that is known whole cannot be shown by, before anything is asked or written.

    Raises:
        UsageError: There is no such column, --after is no number of a row, or --sort is given too.
    """
    if page.after is not None and not (page.after.isascii() and page.after.isdecimal()):
        raise UsageError("--after takes the number of a row", hint="take it from `next`")
    _chosen(layout, page, "auto")
    _order(layout, page)


def column_named(layout: Layout, name: str, *, flag: str) -> Column:
    """Return the column of this name.

    Raises:
        UsageError: There is none.
    """
    column = layout.named(name)
    if column is None:
        known = [item.name for item in (*layout.columns, *layout.wide)]
        raise UsageError(
            f"{flag}: there is no column {name!r}",
            hint=nearest.meant(name, known, otherwise=f"the columns are {', '.join(known)}"),
        )
    return column


def fields_of(layout: Layout, page: Page, output: str) -> list[str] | None:
    """Return the fields that a list shows or sorts by, None where it shows whole rows.

    Raises:
        UsageError: A column does not exist.
    """
    if output in ("json", "jsonl") and page.columns is None:
        return None
    sorted_by = _order(layout, page)
    return [
        *(column.name for column in _chosen(layout, page, output)),
        *([] if sorted_by is None else [sorted_by]),
    ]


def _chosen(layout: Layout, page: Page, output: str) -> list[Column]:
    if page.columns is not None:
        return [
            column_named(layout, name.strip(), flag="--columns") for name in page.columns.split(",")
        ]
    return [*layout.columns, *(layout.wide if output == "wide" else ())]


def _order(layout: Layout, page: Page) -> str | None:
    """Return the column that a list is sorted by, None where it keeps its own order.

    Raises:
        UsageError: There is no such column, or a cursor of the list's own order is given too.
    """
    if page.sort is None:
        return None
    name = column_named(layout, page.sort.removeprefix("-"), flag="--sort").name
    if page.after is not None:
        raise UsageError(
            "--sort and --after do not go together: a cursor follows the list's own order",
            hint="give --all, or a larger --limit",
        )
    return name


def _picked(rows: Sequence[Row], page: Page, chosen: Sequence[Column]) -> Sequence[Row]:
    if page.columns is None:
        return rows
    return [{column.name: row.get(column.name) for column in chosen} for row in rows]


def _rows(
    layout: Layout, page: Page, fetch: Fetch
) -> tuple[Iterator[Sequence[Row]], Callable[[], Any]]:
    """Return the rows in batches, and what tells the cursor behind them once they are read."""
    cursor: list[Any] = [None]
    limit = page.limit or _MOST

    def pages(everything: bool) -> Iterator[Sequence[Row]]:
        after: Any = page.after
        while True:
            rows, after = fetch(after, _BATCH if everything else limit)
            yield rows
            if not everything or after is None:
                break
        cursor[0] = after

    name = _order(layout, page)
    if page.sort is None or name is None:
        return pages(page.everything), lambda: cursor[0]
    backwards = page.sort.startswith("-")
    every = (row for batch in pages(everything=True) for row in batch)
    if page.everything:
        return iter([sorted(every, key=_by(name), reverse=backwards)]), lambda: None
    pick = heapq.nlargest if backwards else heapq.nsmallest
    return iter([pick(limit, every, key=_by(name))]), lambda: None


def _by(name: str) -> Callable[[Row], tuple[bool, Any]]:
    """Return the sort key: what is missing counts as the smallest."""

    def key(row: Row) -> tuple[bool, Any]:
        value = row.get(name)
        if value is None:
            return False, 0
        return True, cell(value) if isinstance(value, (list, tuple, dict)) else value

    return key


def show_view(session: Session, view: Mapping[str, Any]) -> None:
    """Show one object: as JSON, or a line for each of its fields."""
    if session.wants_json:
        session.console.json(view)
    else:
        shown = dict(view)
        if session.console.is_terminal and isinstance(shown.get("audit"), dict):
            shown["audit"] = screen.anchor(shown["audit"], whole=False)
        session.console.write("".join(f"{name}: {cell(value)}\n" for name, value in shown.items()))
