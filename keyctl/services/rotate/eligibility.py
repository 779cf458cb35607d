"""Decide whether this caller may rotate a key now."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from keyctl import keystring, lifecycle
from keyctl.errors import Violation
from keyctl.policy import engine
from keyctl.policy.facts import Facts
from keyctl.records import Key
from keyctl.services.authorize.verdict import facts_of
from keyctl.services.workspace import Workspace


def refuse_unfit(
    workspace: Workspace,
    connection: Connection,
    key: Key,
    *,
    now: datetime,
    supplied: str | None = None,
) -> None:
    """Refuse to rotate what is not in use, or not the caller's to rotate.

    Raises:
        PolicyDeniedError: With every rule that speaks against it.
    """
    facts = facts_of(
        connection,
        workspace.settings,
        workspace.caller,
        key,
        "rotate",
        now=now,
    )
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
    if violations:
        raise engine.refuse(violations)


def _added(before: Facts, after: Facts) -> list[Violation]:
    """Return what a rotation breaks, and not what a policy came to say later.

    It changes no field: a stricter budget must not keep an old secret alive for ever.
    """
    known = {(item.rule, item.field) for item in engine.evaluate(before)}
    return [item for item in engine.evaluate(after) if (item.rule, item.field) not in known]
