"""Read a list, a CSV file or JSON lines, row by row, with the place of each."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keyctl import jsontext, money
from keyctl.errors import KeyctlError, MalformedRequestError, UsageError, Violation

if TYPE_CHECKING:
    from keyctl.cli.command import FieldOption

MOST_ROWS: Final = 100_000
_LARGEST: Final = 256 * 1024 * 1024
_TRUTH: Final = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def columns_of(fields: Iterable["FieldOption"]) -> dict[str, str]:
    """Return the field of each option's name, as people write it over a column: ``alias`` is key_alias."""
    return {item.parameter.removeprefix("field_"): item.field for item in fields}


def read_bodies(
    source: str,
    kinds: Mapping[str, str],
    *,
    schema: str,
    renamed: Mapping[str, str],
) -> list[tuple[str, dict[str, Any]]]:
    """Return the body of each row, with its place such as ``keys.csv:3``.

    *kinds* says how a cell is read, by column; the fields are those of the *schema* of this name.
    A column of a CSV file that is no field of *kinds* may have one of the names *renamed*.

    Raises:
        UsageError: The list cannot be read, is empty, or is too long.
        KeyctlError: Cells or lines of it cannot be read.
    """
    text = _text(source)
    as_json = source.endswith((".jsonl", ".json")) or text.lstrip().startswith("{")
    cells = _Cells(kinds, schema, renamed)
    rows = list(_json_lines(source, text, cells) if as_json else _csv_rows(source, text, cells))
    cells.refuse()
    if not rows:
        raise UsageError(f"{source} holds no rows", hint="a line of names, and a line for each row")
    if len(rows) > MOST_ROWS:
        raise UsageError(f"at most {MOST_ROWS} rows are taken at once", hint="make several lists")
    return rows


def _text(source: str) -> str:
    try:
        if source == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(_LARGEST + 1)
        # Cut at the end of a row, what is left would be taken for the whole list.
        if len(data) > _LARGEST:
            raise UsageError(f"{source} is larger than 256 MiB", hint="make several lists")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{source} is not UTF-8 text", hint="save it as UTF-8") from None
    except OSError as error:
        raise UsageError(
            f"{source} cannot be read: {error.strerror}", hint="check the path"
        ) from error


def _json_lines(source: str, text: str, cells: "_Cells") -> Iterator[tuple[str, dict[str, Any]]]:
    # Not splitlines(): a JSON string may hold U+2028 and the like as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{source}:{number}"
            try:
                yield place, jsontext.load_document(line, what=place)
            except MalformedRequestError as error:
                cells.faults.append(error)


def _csv_rows(source: str, text: str, values: "_Cells") -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        for mark, said in ((";", ";"), ("\t", "tabs")):
            if len(names) == 1 and mark in names[0]:
                raise UsageError(
                    f"{source}:1: the first line is a single column named {names[0]!r}",
                    hint=f"separated by {said}? save it with commas",
                )
        names = [values.field(name) for name in names]
        if len(set(names)) != len(names) or "" in names:
            raise UsageError(
                f"{source}:1: each column has a name of its own", hint="name each once"
            )
        for cells in reader:
            if not any(cells):
                continue
            place = f"{source}:{reader.line_num}"
            if len(cells) != len(names):
                values.faults.append(
                    UsageError(
                        f"{place}: there are {len(cells)} cells for {len(names)} columns",
                        hint="put a cell with commas in quotes",
                    )
                )
                continue
            yield place, values.row(place, zip(names, cells, strict=True))
    except csv.Error as error:
        raise UsageError(
            f"{source}:{reader.line_num}: is not CSV: {error}",
            hint="quote cells with quotes in them",
        ) from error


@dataclass(frozen=True, slots=True)
class _Cells:
    """Reads cells, each as its column's kind of value."""

    kinds: Mapping[str, str]
    schema: str
    renamed: Mapping[str, str]
    faults: list[KeyctlError] = field(default_factory=list)

    def field(self, name: str) -> str:
        """Return the field that a column of this name is of."""
        if name in self.kinds:
            return name
        return self.renamed.get(name.lower().lstrip("-").replace("-", "_"), name)

    def row(self, place: str, cells: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Return the body that a row's cells make; what is wrong in them is kept for the end."""
        body = {}
        for name, cell in cells:
            if cell.strip():
                try:
                    body[name] = self.value(place, name, cell.strip())
                except UsageError as error:
                    self.faults.append(error)
        return body

    def refuse(self) -> None:
        """Refuse the list if a cell of it could not be read.

        Raises:
            KeyctlError: With every cell and line that could not.
        """
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            error = UsageError(
                f"{self.faults[0].message} (and {len(self.faults) - 1} more)",
                hint=self.faults[0].hint,
                violations=[
                    Violation(rule="list.cell", field="", message=error.message)
                    for error in self.faults
                ],
            )
            error.is_of_rows = True
            raise error

    def value(self, place: str, name: str, cell: str) -> Any:
        """Return a cell as its field's value: lists with commas between, everything deeper as JSON."""
        kind = self.kinds.get(name)
        try:
            if cell[0] in "[{":
                return jsontext.load_value(cell, what="it")
            if kind == "money":
                return money.dollars(money.parse_money(cell))
            if kind == "number":
                return int(cell)
            if kind == "list":
                return [part.strip() for part in cell.split(",")]
            if kind == "flag":
                return _TRUTH[cell.lower()]
        except KeyctlError as error:
            raise UsageError(f"{place}: {name}: {error.message}", hint=error.hint) from None
        except (ValueError, KeyError):
            what = "true or false" if kind == "flag" else "a whole number"
            raise UsageError(
                f"{place}: {name}: {cell!r} is not {what}", hint=f"see keyctl schema {self.schema}"
            ) from None
        return cell
