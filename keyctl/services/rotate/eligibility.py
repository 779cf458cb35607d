"""Decide whether this caller may rotate a key now."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from keyctl import keystring, lifecycle
from keyctl.config.settings import Settings
from keyctl.errors import PolicyDeniedError, Violation
from keyctl.policy import engine
from keyctl.policy.facts import Caller, Facts
from keyctl.records import Key
from keyctl.services.authorize.verdict import facts_of
from keyctl.services.delivery.sinks import own_sink
from keyctl.services.keys.find import may_see
from keyctl.sinks.base import Sink


def refuse_unfit(
    settings: Settings,
    connection: Connection,
    caller: Caller,
    key: Key,
    *,
    to_own_sink: bool,
    now: datetime,
    supplied: str | None = None,
) -> None:
    """Refuse to rotate what is not in use, or not the caller's to rotate.

    *to_own_sink* tells that the new string goes where the key's always do.

    Raises:
        PolicyDeniedError: With every rule that speaks against it.
    """
    facts = facts_of(
        connection,
        settings,
        caller,
        key,
        "rotate",
        now=now,
    )
    facts = replace(facts, to_own_sink=to_own_sink)
    state = lifecycle.key_state(key, now=now)
    violations = engine.evaluate_caller(facts)
    # A key in use with a new generated string differs in nothing that a rule looks at.
    if state != "active" or supplied is not None:
        changed = replace(
            facts,
            rotated=state,
            supplied_is_strong=None if supplied is None else keystring.is_strong(supplied),
        )
        violations = [*_added(facts, changed), *violations]
    if [item.rule for item in violations] == ["key.rotatable"]:
        raise PolicyDeniedError(
            violations[0].message, hint=_way_out(key, state), violations=violations
        )
    if violations:
        raise engine.refuse(violations)


def _way_out(key: Key, state: str) -> str:
    """Return what a person types instead of rotating a key that is in this state."""
    if state == "blocked":
        return (
            f"keyctl delete {key.id} && keyctl generate …,"
            f" or keyctl unblock {key.id} and then keyctl rotate {key.id} --grace none"
        )
    if state == "pending":
        return "its keyctl generate is not done: wait for it, or run it again"
    return "make another with keyctl generate"


def _added(before: Facts, after: Facts) -> list[Violation]:
    """Return what a rotation breaks, and not what a policy came to say later.

    It changes no field: a stricter budget must not keep an old secret alive for ever.
    """
    known = {(item.rule, item.field) for item in engine.evaluate(before)}
    return [item for item in engine.evaluate(after) if (item.rule, item.field) not in known]


def is_own_sink(settings: Settings, key: Key, sink: Sink) -> bool:
    """Tell whether *sink* is where the key's new strings always go."""
    return (
        not sink.shows_answer
        and sink.name in settings.sinks
        and sink.name == own_sink(settings, key)
    )


def may_rotate(
    settings: Settings, connection: Connection, caller: Caller, key: Key, *, now: datetime
) -> bool:
    """Tell whether the caller may rotate *key* into its own sink, whatever state it is in."""
    if caller.key is None and caller.is_admin:
        return True
    if not may_see(caller, key):
        return False
    facts = facts_of(connection, settings, caller, key, "rotate", now=now)
    return not engine.evaluate_caller(replace(facts, to_own_sink=True))
