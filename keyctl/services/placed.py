"""Refuse a list with everything that is wrong in it at once, each with its place."""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass

from keyctl.errors import (
    KeyctlError,
    NotFoundError,
    TeamNotFoundError,
    UserNotFoundError,
    Violation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Why a row cannot be made, where it stands, and the field at fault if that is known."""

    place: str
    field: str = ""
    error: KeyctlError


def refuse_placed(faults: Iterable[Placed]) -> None:
    """Raise all of *faults* as one error of the first one's kind.

    Raises:
        KeyctlError: There is one.
    """
    found = list(faults)
    if not found:
        return
    first = found[0]
    error = copy(first.error)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    error.message = f"{first.place}: {first.error.message}{more}"
    error.args = (error.message,)
    error.is_of_rows = True
    error.hint = _hint([item.error for item in found]) or first.error.hint
    error.violations = tuple(
        Violation(
            rule="list.missing" if isinstance(item.error, NotFoundError) else "list.row",
            field=item.field,
            message=f"{item.place}: {item.error.message}",
        )
        for item in found
    )
    raise error


def _hint(errors: Iterable[KeyctlError]) -> str | None:
    """Say how many of a kind are made at once, where all that is missing is of one kind."""
    kinds = {type(error) for error in errors}
    for kind, noun in ((UserNotFoundError, "user"), (TeamNotFoundError, "team")):
        if kinds == {kind}:
            return f"keyctl {noun} create --from FILE makes the {noun}s of a list"
    return None
