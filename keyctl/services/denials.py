"""Put refusals on record: the only writer of the events whose action ends in ``_denied``.

The action is that of the command which was refused: `key_unblock_denied`, `team_create_denied`.
A refused `generate` is `key_denied`, as it has been from the first version on.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from keyctl import keystring
from keyctl.db.queries import audit
from keyctl.db.queries.events import Conditions
from keyctl.db.schema import HEAD
from keyctl.errors import BusyError, CallerDeniedError, DatabaseError, DeniedError, RestrictedError
from keyctl.services.transaction import Unit, writing
from keyctl.services.workspace import Workspace

_LONGEST_ID: Final = 600  # what the column holds
_PERIOD: Final = timedelta(hours=1)
MOST_OF_A_KEY: Final = 10
MOST_STRANGERS: Final = 100
_NO_MORE: Final = "; more of these within the hour are not recorded"


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
    object_id = key_id or ("" if secret_id is None else f"{keystring.PREFIX}{secret_id}")
    after = None if secret_id is None else {"secret_id": secret_id}
    attempt = Attempt("caller_denied", "key", object_id)
    _where_possible(
        workspace,
        attempt,
        error,
        after=after,
        room=lambda unit: _room_for_strangers(unit, key_id),
    )


def _room_for_strangers(unit: Unit, key_id: str | None) -> int:
    """Return how many more refused callers may go on record now.

    Whoever repeats a string that is no key would else fill the trail.  Each known key has its own
    number in an hour, so that nobody hides a real one behind a flood.  All others share one: of
    the newest events so many, which needs no scan and leaves every honest event its place.  Where
    that many are there, and none says that no more are recorded, one more does.
    """
    since = unit.now - _PERIOD
    if key_id is not None:
        wanted = Conditions(key_ids=[key_id], actions=["caller_denied"], since=since)
        return MOST_OF_A_KEY - len(audit.find_events(unit.connection, wanted, limit=MOST_OF_A_KEY))
    newest = audit.find_events(unit.connection, Conditions(since=since), limit=2 * MOST_STRANGERS)
    refused = [event for event in newest if _is_of_a_stranger(event)]
    if any(str(event["reason"]).endswith(_NO_MORE) for event in refused):
        return MOST_STRANGERS - len(refused)
    return max(MOST_STRANGERS - len(refused), 1)


def _is_of_a_stranger(event: Mapping[str, Any]) -> bool:
    """Tell whether it is a refused caller's who is on record under no known key.

    Who was refused a place broke a rule, which is on record with it; a stranger breaks none.
    """
    object_id = str(event["object_id"])
    is_unknown = not object_id or object_id.startswith(keystring.PREFIX)
    broke_a_rule = '"violations"' in str(event["after"])
    return event["action"] == "caller_denied" and is_unknown and not broke_a_rule


def record_restriction(workspace: Workspace, error: RestrictedError) -> None:
    """Put on record that somebody named a place that is not theirs to choose."""
    _where_possible(workspace, Attempt("caller_denied", "key"), error, after=_rules(error))


def _where_possible(
    workspace: Workspace,
    attempt: Attempt,
    error: DeniedError,
    *,
    after: dict[str, Any] | None,
    room: Callable[[Unit], int | None] = lambda _: None,
) -> None:
    try:
        # Nobody who is refused makes a database, or migrates one.
        if workspace.database.revision() == HEAD:
            with writing(workspace, to_finish=True) as unit:
                left = room(unit)
                if left is None or left > 0:
                    is_last = left == 1
                    _write(unit, attempt, error, after=after, more=_NO_MORE if is_last else "")
    except (DatabaseError, BusyError):
        return


def _write(
    unit: Unit,
    attempt: Attempt,
    error: DeniedError,
    *,
    after: dict[str, Any] | None,
    more: str = "",
) -> None:
    unit.record(
        attempt.action,
        attempt.object_type,
        keystring.redact(attempt.object_id)[:_LONGEST_ID],
        after=after,
        reason=f"{error.message}{more}",
    )


def _rules(error: DeniedError) -> dict[str, Any] | None:
    """Return the rules that were broken, None where the caller's role alone was the reason."""
    rules = [{"rule": item.rule, "field": item.field} for item in error.violations]
    return {"violations": rules} if rules else None
