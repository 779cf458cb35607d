"""Put refusals on record: the only writer of the events whose action ends in ``_denied``.

The action is that of the command which was refused: `key_unblock_denied`, `team_create_denied`.
A refused `generate` is `key_denied`, as it has been from the first version on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from keyctl import keystring
from keyctl.db.schema import HEAD
from keyctl.errors import BusyError, CallerDeniedError, DatabaseError, DeniedError, RestrictedError
from keyctl.services.transaction import Unit, writing
from keyctl.services.workspace import Workspace

_LONGEST_ID: Final = 600  # what the column holds


@dataclass(slots=True)
class Attempt:
    """What a caller tries: the action of its refusal, and the object.

    `object_id` begins as what the caller gave, a key string from stdin included, and becomes
    the object's own id when that is known to be the caller's to see.
    """

    action: str
    object_type: str
    object_id: str = ""


@contextmanager
def recorded(
    workspace: Workspace, action: str, object_type: str, object_id: str = ""
) -> Iterator[Attempt]:
    """Put a refusal that leaves the block on record, once, in a transaction of its own.

    The block's own transaction must be over by then: use `note` inside one that goes on.
    """
    attempt = Attempt(action, object_type, object_id)
    try:
        yield attempt
    except DeniedError as error:
        record(workspace, attempt, error)
        raise


def record(workspace: Workspace, attempt: Attempt, error: DeniedError) -> None:
    """Put one refusal on record in a transaction of its own."""
    with writing(workspace, to_finish=True) as unit:
        note(unit, attempt, error)


def note(unit: Unit, attempt: Attempt, error: DeniedError) -> None:
    """Record one refusal of a batch in the transaction of the batch, which goes on."""
    _write(unit, attempt, error, after=_rules(error))


def record_reading(workspace: Workspace, attempt: Attempt, error: DeniedError) -> None:
    """Put on record that a caller was refused to read, where the database can be written.

    The refusal stands also where it cannot: a copy that is only read has no trail of its own.
    """
    _where_possible(workspace, attempt, error, after=None)


def record_stranger(
    workspace: Workspace, error: CallerDeniedError, *, key_id: str | None, secret_id: str | None
) -> None:
    """Put on record that a caller's key does not authenticate; never any part of its secret.

    It is on record under the key that it was a secret of, else under the public id that it
    carries, else (no string of the generated form) under nothing.
    """
    object_id = key_id or ("" if secret_id is None else f"sk-{secret_id}")
    after = None if secret_id is None else {"secret_id": secret_id}
    _where_possible(workspace, Attempt("caller_denied", "key", object_id), error, after=after)


def record_restriction(workspace: Workspace, error: RestrictedError) -> None:
    """Put on record that somebody named a place that is not theirs to choose."""
    _where_possible(workspace, Attempt("caller_denied", "key"), error, after=_rules(error))


def _where_possible(
    workspace: Workspace, attempt: Attempt, error: DeniedError, *, after: dict[str, Any] | None
) -> None:
    try:
        # Nobody who is refused makes a database, or migrates one.
        if workspace.database.revision() == HEAD:
            with writing(workspace, to_finish=True) as unit:
                _write(unit, attempt, error, after=after)
    except (DatabaseError, BusyError):
        return


def _write(
    unit: Unit, attempt: Attempt, error: DeniedError, *, after: dict[str, Any] | None
) -> None:
    unit.record(
        attempt.action,
        attempt.object_type,
        keystring.redact(attempt.object_id)[:_LONGEST_ID],
        after=after,
        reason=error.message,
    )


def _rules(error: DeniedError) -> dict[str, Any] | None:
    """Return the rules that were broken, None where the caller's role alone was the reason."""
    rules = [{"rule": item.rule, "field": item.field} for item in error.violations]
    return {"violations": rules} if rules else None
