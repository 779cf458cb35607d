"""Add to a list of a key and take from it, without naming the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyctl.errors import ModelNotFoundError, NotFoundError, TagNotFoundError, UsageError
from keyctl.nearest import meant
from keyctl.records import Key


@dataclass(frozen=True, slots=True)
class ListEdit:
    """What comes to a list and what leaves it."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def resolved(before: Key, patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return *patch* with whole lists in the place of edits.

    Raises:
        UsageError: The edit would turn a list that is empty, which allows everything, into one
            that allows little, or the reverse.
        NotFoundError: What should leave is not in the list.
    """
    return {
        name: _edited(before, name, value) if isinstance(value, ListEdit) else value
        for name, value in patch.items()
    }


def _edited(before: Key, name: str, edit: ListEdit) -> list[str]:
    stored: Sequence[str] = getattr(before, name)
    for item in edit.removed:
        if item not in stored:
            raise _missing(name, item, stored)
    left = [item for item in stored if item not in edit.removed]
    after = [*left, *(item for item in edit.added if item not in left)]
    if name == "models" and edit.added and not stored:
        raise UsageError(
            f"key {before.id} has no list of models: it may use all that its owner may",
            hint="--model sets a list",
        )
    if name == "models" and edit.removed and not after:
        raise UsageError(
            f"without its last model key {before.id} might use all that its owner may",
            hint="--clear models says so, keyctl block stops it",
        )
    return after


def _missing(name: str, item: str, stored: Sequence[str]) -> NotFoundError:
    kind = ModelNotFoundError if name == "models" else TagNotFoundError
    held = ", ".join(stored) or "nothing"
    return kind(
        f"the key's {name} do not have {item!r}",
        hint=meant(item, stored, otherwise=f"they are {held}"),
    )
