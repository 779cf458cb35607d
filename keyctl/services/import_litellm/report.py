"""Declare what an import is asked for, where it reads from, and what it says of each row."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, TypeVar

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import keystring
from keyctl.errors import KeyctlError, UnmappableRowError, Violation
from keyctl.litellm.keys import digest_of
from keyctl.litellm.values import Row
from keyctl.services.callers import check_admin
from keyctl.services.transaction import Unit, anchor, writing
from keyctl.services.workspace import Workspace

Kind = Literal["access_group", "user", "organization", "team", "member", "key"]
Result = Literal["imported", "present", "skipped", "failed"]
Begin = Callable[[], AbstractContextManager[Unit]]


T = TypeVar("T")
_TRIES: Final = 5


class LitellmRows(Protocol):
    """Where the rows come from: LiteLLM's database, or a dump of its keys."""

    def count_keys(self) -> int:
        """Return how many keys there are."""

    def users(self) -> Iterator[Row]:
        """Yield the users."""

    def groups(self) -> Iterator[Row]:
        """Yield the groups of models."""

    def organizations(self) -> Iterator[Row]:
        """Yield the organizations with their budgets and members."""

    def teams(self) -> Iterator[Row]:
        """Yield the teams with their members."""

    def keys(self) -> Iterator[Row]:
        """Yield the keys with their budgets and what else they refer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOrder:
    """Options of one import.

    `dropped` are columns whose restrictions may be left behind; `administers` that the imported
    key strings may be used as callers.
    """

    include_expired: bool = False
    dropped: frozenset[str] = frozenset()
    overrides: tuple[str, ...] = ()
    reason: str | None = None
    dry_run: bool = False
    administers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportLine:
    """What became of one row.

    `source` is its id in LiteLLM; of a key, whose id is the hash of its key string, only the
    first eight characters.  `changes` are what means something else here, `lost` the columns
    that say something and have no home; `audit` is the head of the chain after its transaction.
    """

    object_type: Kind
    source: str
    result: Result
    key_id: str | None = None
    key_alias: str | None = None
    reason: str | None = None
    violations: Sequence[Violation] = ()
    changes: Sequence[str] = ()
    lost: Sequence[str] = ()
    audit: dict[str, Any] | None = None


def failed(kind: Kind, source: str, error: KeyctlError, **more: Any) -> ImportLine:
    """Return the line for a row that *error* keeps out, with everything that it breaks."""
    said = "; ".join(
        f"{item.rule}: {item.field} {item.message}" for item in error.violations
    ) or " ".join([error.message, *([f"({error.hint})"] if error.hint else [])])
    return ImportLine(
        object_type=kind,
        source=source,
        result="failed",
        reason=keystring.redact(f"{error.code}: {said}"),
        violations=error.violations,
        **more,
    )


def passed_over(source: str, result: Result, reason: str | None = None) -> ImportLine:
    """Return the line for a key that is not imported, and rightly so."""
    return ImportLine(object_type="key", source=source, result=result, reason=reason)


def key_name(row: Row) -> str:
    """Return what a key is called in the report: enough of its id to find it, and no credential.

    A token that is no hash may be the key string: what stands for it is the beginning of its own.
    """
    try:
        return digest_of(row)[:8]
    except UnmappableRowError:
        text = str(row.get("token"))
        return f"sha256:{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def owner_name(object_id: object) -> str:
    """Return what a user, organization or team is called in the report."""
    return keystring.redact(str(object_id)[:255])


@contextmanager
def units(workspace: Workspace, *, dry_run: bool) -> Iterator[Begin]:
    """Yield what begins a transaction for a batch.

    In a dry run all batches share one that is rolled back: it judges what a run would judge, on
    what a run would have written before, and so reports the same.
    """

    @contextmanager
    def begin() -> Iterator[Unit]:
        with writing(workspace) as unit:
            check_admin(unit.caller, "import keys", "key_import_denied")
            yield unit

    if not dry_run:
        yield begin
        return
    with workspace.database.read():
        pass  # refuses what a writing command would create or migrate
    with suppress(_RolledBack), begin() as unit:
        yield lambda: _forgetting(unit)
        raise _RolledBack


def on_record(lines: Sequence[ImportLine], unit: Unit) -> list[ImportLine]:
    """Return *lines* with the head of the audit chain after the transaction that imported them."""
    head = anchor(unit.heads[-1]) if unit.heads else None
    return [replace(line, audit=head) if line.result == "imported" else line for line in lines]


def committed(step: Callable[[], T], order: ImportOrder) -> T:
    """Run the transaction of a batch; once more where others took its names in the meantime.

    Raises:
        ConstraintError: They keep doing so, or do it in a dry run, which has one transaction.
    """
    for _ in range(0 if order.dry_run else _TRIES):
        with suppress(ConstraintError):
            return step()
    return step()


class _RolledBack(Exception):  # noqa: N818  # not an error: a dry run ends so
    pass


def _forgetting(unit: Unit) -> AbstractContextManager[Unit]:
    unit.events.clear()
    return nullcontext(unit)
