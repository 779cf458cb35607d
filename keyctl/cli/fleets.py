"""Read fleet files from disk, and show a plan: as a diff for people, as Markdown, as JSON."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl import jsontext, nearest
from keyctl.cli.choices import require_one_of
from keyctl.cli.console import one_line, told
from keyctl.cli.tables import cell
from keyctl.errors import UsageError, Violation
from keyctl.portions import portions

if TYPE_CHECKING:
    from keyctl.fleetfile.described import FleetText
    from keyctl.services.fleet.model import Change, Plan, Warned
    from keyctl.services.fleet.planner import FleetOrder
    from keyctl.services.leaving import What

Files = Annotated[
    list[str] | None, typer.Argument(metavar="FILE|DIR…", help="Fleet files, folders, or -.")
]
LeftKeys = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="block|delete|keep",
        help="What becomes of live keys of who gets a lower role or ends.",
    ),
]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune", help="End what files of this fleet described and no file describes now."
    ),
]

ENDINGS: Final = (".yaml", ".yml", ".json")
_LARGEST: Final = 64 * 1024 * 1024
_TYPES: Final = {
    "org": "organization",
    "organization": "organization",
    "team": "team",
    "user": "user",
    "key": "key",
    "budget": "budget",
}
_SIGNS: Final = {"create": "+", "update": "~", "delete": "-", "adopt": "="}
_WORDS: Final = {
    "create": "to create",
    "update": "to change",
    "delete": "to end",
    "adopt": "to adopt",
}
_DONE: Final = {"create": "created", "update": "changed", "delete": "ended", "adopt": "adopted"}
_LONGEST_VALUE: Final = 60
_SHOWN_AT_ONCE: Final = 1000


def read_files(paths: Sequence[str]) -> "list[FleetText]":
    """Return the fleet files that *paths* name; a folder is all that are in it, folders in it included.

    Raises:
        UsageError: One cannot be read, or a folder holds none.
    """
    from keyctl.fleetfile.described import FleetText

    if not paths:
        raise UsageError("name a fleet file or a folder of them", hint="such as fleet.yaml, or -")
    found: dict[str, FleetText] = {}
    for given in paths:
        if given == "-":
            found.setdefault(
                "-", FleetText(name="-", text=_text("-", sys.stdin.buffer.read(_LARGEST + 1)))
            )
            continue
        path = Path(given)
        for file in _files_of(path):
            found.setdefault(os.path.realpath(file), FleetText(name=str(file), text=_read(file)))
    return list(found.values())


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in ENDINGS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise UsageError(f"{path} holds no fleet files", hint=f"they end with {', '.join(ENDINGS)}")
    return files


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _text(str(path), file.read(_LARGEST + 1))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {os.strerror(error.errno or 0)}", hint="check the path"
        ) from error


def _text(name: str, data: bytes) -> str:
    if len(data) > _LARGEST:
        raise UsageError(f"{name} is larger than 64 MiB", hint="split it; a folder is one fleet")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8 text", hint="save it as UTF-8") from None


def order_of(
    paths: Sequence[str], *, prune: bool, only: Sequence[str] = (), keys: str | None = None
) -> "FleetOrder":
    """Return what is to be planned of the files.

    Raises:
        UsageError: A file cannot be read, `--only` names nothing that is described, or `--keys`
            says nothing known.
        MalformedRequestError: With every fault of every file.
    """
    from keyctl.fleetfile.described import read_fleet
    from keyctl.services.fleet.planner import FleetOrder

    chosen = tuple(_selector(text) for text in only)
    left = left_keys(keys)
    fleet = read_fleet(read_files(paths))
    order = FleetOrder(fleet=fleet, prune=prune, only=chosen, keys=left)
    described = order.described() if chosen else set()
    for text, selector in zip(only, chosen, strict=True):
        # With --prune an object may be named that no file describes any more.
        if selector not in described and not prune:
            known = sorted(f"{word}/{name}" for word, name in described)
            hint = nearest.meant(text, known, otherwise="without --only all is planned")
            raise UsageError(f"--only {text}: no file describes that", hint=hint)
    return order


def left_keys(given: str | None) -> "What | None":
    """Return what `--keys` says becomes of the keys of who gets a lower role or ends.

    Raises:
        UsageError: It says nothing known.
    """
    from keyctl.services.leaving import CHOICES

    for choice in CHOICES:
        if given == choice:
            return choice
    if given is not None:
        require_one_of(given, CHOICES, what="--keys")
    return None


def _selector(text: str) -> tuple[str, str]:
    word, slash, name = text.partition("/")
    if not slash or not name or word not in _TYPES:
        raise UsageError(
            f"--only takes TYPE/NAME, not {text!r}", hint="such as --only team/web or key/checkout"
        )
    return _TYPES[word], name


def plan_document(plan: "Plan", order: "FleetOrder") -> dict[str, Any]:
    """Return a plan as scripts read it, and as `apply --plan` takes it back."""
    document = plan_in_pieces(plan, order)
    return {**document, "changes": list(document["changes"])}


def plan_in_pieces(plan: "Plan", order: "FleetOrder") -> dict[str, Any]:
    """Return the same, its changes yet to be made where there are any: they may be very many."""
    return {
        "changes": _change_documents(plan, order) if plan.changes else [],
        "summary": plan.summary(),
        "head": {"seq": plan.head.seq, "head": plan.head.hash},
        "warnings": warning_lines(plan, order),
        "prune": order.prune,
        "only": [f"{word}/{name}" for word, name in order.only],
        "left_keys": order.keys,
        "files": [{"name": item.name, "text": item.text} for item in order.fleet.sources],
    }


def _change_documents(plan: "Plan", order: "FleetOrder") -> Iterator[dict[str, Any]]:
    wanted = [(change.entry, "") for change in plan.changes if change.entry is not None]
    found = order.fleet.places(wanted)
    for change in plan.changes:
        yield _change_document(change, None if change.entry is None else next(found))


def show_diff(plan: "Plan", order: "FleetOrder", show: Callable[[str], None]) -> None:
    """Show a plan as a person reads it, some lines at a time: it may be very long."""
    for some in portions(diff_lines(plan, order), _SHOWN_AT_ONCE):
        show("\n".join(some))


def _change_document(change: "Change", place: Any) -> dict[str, Any]:
    return {
        "action": change.action,
        "object_type": change.object_type,
        "object_id": change.object_id,
        "key_id": change.key_id,
        "fields": {
            name: {"before": before, "after": after}
            for name, (before, after) in change.fields.items()
        },
        "violations": [asdict(item) for item in change.violations],
        "file": None if place is None else place.file,
        "line": None if place is None else place.line,
    }


def diff_lines(plan: "Plan", order: "FleetOrder") -> Iterator[str]:
    """Yield a plan as a person reads it: what is made, changed and ended, and what speaks against it."""
    for change in plan.changes:
        known = f" ({change.key_id})" if change.key_id else ""
        name = one_line(change.object_id)
        yield f"{_SIGNS[change.action]} {change.object_type} {name}{known}"
        if change.action in ("create", "update"):
            width = max((len(field) for field in change.fields), default=0)
            for field, (before, after) in change.fields.items():
                shown = _value(after)
                if change.action == "update":
                    shown = f"{_value(before)} -> {shown}"
                yield f"    {field.ljust(width)}  {shown}"
    yield from _denial_lines(plan, order)
    for line in warning_lines(plan, order):
        yield f"warning: {line}"
    yield summary_line(plan)


def _denial_lines(plan: "Plan", order: "FleetOrder") -> Iterator[str]:
    from keyctl.services.fleet.service import placed_violations

    denied = placed_violations(order, plan.changes)
    if denied:
        yield "denied:"
    for item in denied:
        where = f"{item.pop('file')}:{item.pop('line')}"
        named = f"{item.pop('object_type')}s.{item.pop('object_id')}"
        yield f"  {where}: {one_line(named)}: {item['rule']}: {one_line(told(Violation(**item)))}"


def warning_lines(plan: "Plan", order: "FleetOrder") -> list[str]:
    """Return what a person should know, each with its place."""
    placed: list[Warned] = [item for item in plan.warnings if item.entry is not None]
    wanted = [(item.entry, item.field) for item in placed if item.entry is not None]
    places = order.fleet.places(wanted)
    return [
        item.message if item.entry is None else f"{next(places)}: {item.message}"
        for item in plan.warnings
    ]


def summary_line(plan: "Plan") -> str:
    """Return how much would change, in words."""
    return _counted(plan.summary(), _WORDS)


def applied_line(plan: "Plan", *, failed: int) -> str:
    """Return what was done, in words; *failed* new keys were not made."""
    counts = plan.summary()
    return _counted({**counts, "create": counts["create"] - failed}, _DONE)


def _counted(counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    parts = [f"{counts[action]} {text}" for action, text in words.items() if counts[action]]
    return ", ".join([*parts, f"{counts['unchanged']} unchanged"])


def markdown(plan: "Plan", order: "FleetOrder") -> str:
    """Return a plan as the comment of a pull request."""
    lines = list(diff_lines(plan, order))
    title = (
        "denied" if plan.is_denied else "nothing to do" if not plan.does_something else lines[-1]
    )
    # A fence longer than any in the text, so that nothing ends it early.
    fence = "`" * max(3, 1 + max((_run_of_ticks(line) for line in lines), default=0))
    body = "\n".join(lines)
    return f"### keyctl plan: {title}\n\n{fence}diff\n{body}\n{fence}\n"


def _run_of_ticks(text: str) -> int:
    longest = current = 0
    for character in text:
        current = current + 1 if character == "`" else 0
        longest = max(longest, current)
    return longest


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, dict)):
        text = jsontext.dumps(value)
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = cell(value)
    text = one_line(text)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
