"""Compare what is stored with what the audit chain last said of it, and record what stands."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import actions, jsontext
from keyctl.db import told, written
from keyctl.db.told import TABLES, Told
from keyctl.errors import UnreadableRowError, Violation
from keyctl.services.transaction import Unit, told_columns

RECORDED: Final = "state_recorded"
# From this schema on the chain tells every row whole; what is older is recorded once, at the upgrade.
TOLD_SINCE: Final = "1_0005"
# Their `after` tells what was tried, stepped over or staged, and not the key's own row.
_NO_ROWS: Final = frozenset(
    {
        *actions.REMINDERS,
        "event_discarded",
        "grace_ended",
        "key_pruned",
        "key_rotation_failed",
        "key_rotation_staged",
        "rule_overridden",
        "secret_changed",
        "secret_revoked",
        "secrets_pruned",
    }
)
_MEMBERS: Final = {"team": "team_member", "organization": "organization_member"}
_RULE: Final = "audit.state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A field that is stored otherwise than the audit chain says; None where a side has no such row.

    `seq` is the number of the last event about the object, None if there is none.
    """

    object_type: str
    object_id: str
    field: str
    told: Any
    found: Any
    seq: int | None

    def violation(self) -> Violation:
        """Return it as scripts and people are told."""
        by = "no event tells of it" if self.seq is None else f"event {self.seq} was the last"
        return Violation(
            rule=_RULE,
            field=f"{self.object_type} {self.object_id}: {self.field}",
            message=f"is not what the audit chain says ({by})",
            bound=self.told,
            value=self.found,
        )


def hear(memory: Told, event: Mapping[str, Any]) -> None:
    """Note what one event of the chain says about the rows of its object."""
    action, word, seq = event["action"], event["object_type"], event["seq"]
    if action.endswith("denied"):
        return
    after = _document(event["after"])
    for secret in after.get("secrets", ()):
        if secret.get("removed"):
            memory.drop("secret", first=secret["id"])
        else:
            told_secret = {**secret, "key_id": event["object_id"]}
            memory.say("secret", (secret["id"], ""), told_secret, seq)
    if "_member_" in action or word in _MEMBERS.values():
        _hear_of_member(memory, event, after)
    elif word in TABLES and word != "secret" and action not in _NO_ROWS:
        memory.say(word, (event["object_id"], ""), after, seq)
        if action.endswith("_deleted"):
            _forget_members(memory, word, event["object_id"])


def _document(text: str | None) -> dict[str, Any]:
    """Return what an event holds; nothing where somebody who rewrote the chain put no object."""
    try:
        found = {} if text is None else jsontext.loads(text)
    except (RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _hear_of_member(memory: Told, event: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    word = _MEMBERS.get(event["object_type"], event["object_type"])
    before = _document(event["before"])
    user_id = after.get("user_id", before.get("user_id"))
    if event["action"].endswith("_removed"):
        memory.drop(word, first=event["object_id"], second=user_id)
    else:
        memory.say(word, (event["object_id"], user_id), after, event["seq"])


def _forget_members(memory: Told, word: str, object_id: str) -> None:
    """Forget who belonged to what is archived: nobody does any more."""
    if word == "user":
        for member in _MEMBERS.values():
            memory.drop(member, second=object_id)
    elif word in _MEMBERS:
        memory.drop(_MEMBERS[word], first=object_id)


def differences(connection: Connection, memory: Told) -> Iterator[Difference]:
    """Yield every field that is stored otherwise than *memory* has it, and every row too few or too many.

    Afterwards *memory* holds nothing of what is stored.
    """
    for word, row in told.stored(connection):
        identity = told.identity_of(word, row.known if isinstance(row, UnreadableRowError) else row)
        known = memory.find(word, identity)
        memory.drop(word, first=identity[0], second=identity[1])
        name = name_of(word, row)
        if isinstance(row, UnreadableRowError):
            seq = None if known is None else known[1]
            for field in row.columns:
                said = None if known is None else known[0].get(field)
                yield Difference(
                    object_type=word,
                    object_id=name,
                    field=field,
                    told=said,
                    found="cannot be read",
                    seq=seq,
                )
        elif known is None:
            yield Difference(
                object_type=word,
                object_id=name,
                field="(the whole row)",
                told=None,
                found="is stored",
                seq=None,
            )
        else:
            yield from _fields(word, name, row, *known)
    for word, identity, seq in memory.left():
        yield Difference(
            object_type=word,
            object_id=_name(identity),
            field="(the whole row)",
            told="is stored",
            found=None,
            seq=seq,
        )


def _fields(
    word: str, name: str, row: Mapping[str, Any], said: Mapping[str, Any], seq: int
) -> Iterator[Difference]:
    if said.get("deleted_at") is not None and row["deleted_at"] is not None:
        return  # archived: nobody can do anything with it
    found = _as_told(word, row)
    for field in told.compared(word):
        expected = said[field] if field in said else _default(word, field)
        if found[field] != expected:
            yield Difference(
                object_type=word,
                object_id=name,
                field=field,
                told=expected,
                found=found[field],
                seq=seq,
            )


def _as_told(word: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as the chain would tell it: through the same text."""
    columns = written.told(row) if word == "secret" else told_columns(row)
    plain: dict[str, Any] = jsontext.loads(jsontext.canonical(columns))
    return plain


@cache
def _default(word: str, field: str) -> Any:
    """Return what a column holds in rows from before it was there."""
    column = TABLES[word].c[field]
    if column.nullable or column.server_default is None:
        return None
    text = str(getattr(column.server_default, "arg", "")).strip("'")
    if text in ("false", "0", "true", "1") and column.type.python_type is bool:
        return text in ("true", "1")
    return jsontext.loads(text) if text[:1] in "[{0123456789" else text


def name_of(word: str, row: Mapping[str, Any] | UnreadableRowError) -> str:
    """Return the id that people know a row by; a member's is both, as ``team/user``."""
    known = row.known if isinstance(row, UnreadableRowError) else row
    return _name(told.identity_of(word, known))


def _name(identity: tuple[str, str]) -> str:
    first, second = identity
    return f"{first}/{second}" if second else first


def record_rows(
    unit: Unit, word: str, found: Iterable[dict[str, Any] | UnreadableRowError], *, reason: str
) -> int:
    """Record rows as they stand now, those that can be read; return how many."""
    count = 0
    for row in found:
        if isinstance(row, UnreadableRowError):
            continue
        count += 1
        if word == "secret":
            unit.record(
                RECORDED,
                "key",
                row["key_id"],
                after={"secrets": [written.told(row)]},
                reason=reason,
            )
        else:
            identity = told.identity_of(word, row)
            unit.record(RECORDED, word, identity[0], after=told_columns(row), reason=reason)
    return count
