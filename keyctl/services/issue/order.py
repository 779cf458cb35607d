"""Declare what is asked for, written and answered for a new key, whether one or many."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from keyctl import keystring, views
from keyctl.config.settings import Settings
from keyctl.db.queries.audit import Head
from keyctl.keystring import KeyString
from keyctl.policy.facts import Caller
from keyctl.policy.issuing import issuer_of
from keyctl.records import Claim, Key, Secret
from keyctl.requests import GenerateRequest
from keyctl.services.authorize.verdict import Judgement
from keyctl.services.limit_warnings import warnings_about_limits
from keyctl.services.transaction import Unit, anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Everything a person says about the key to be made.

    `replay` tells what a repeated request id gets: the answer, or a refusal because the key
    string itself was to be shown.
    """

    request: GenerateRequest
    service_account: bool = False
    request_id: str | None = None
    overrides: tuple[str, ...] = ()
    reason: str | None = None
    sink: str | None = None
    replay: Literal["answer", "refuse"] = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an order: the answer without the key string, and whether it is an older one."""

    answer: dict[str, Any]
    replayed: bool = False


def new_key_id() -> str:
    """Return an id that no key has."""
    return f"key_{keystring.random_text(20)}"


def record_staging(
    unit: Unit,
    verdict: Judgement,
    row: dict[str, Any],
    secret_id: str,
    *,
    reason: str | None,
    taken_over: bool = False,
) -> None:
    """Note that a key was staged as *row*, and each rule that an admin stepped over for it."""
    for violation in verdict.stepped_over:
        unit.record(
            "rule_overridden",
            "key",
            row["id"],
            after={"rule": violation.rule, "field": violation.field},
            reason=reason,
        )
    unit.record(
        "key_staged",
        "key",
        row["id"],
        after={**row, "secret_id": secret_id},
        reason="taken over from a dead run" if taken_over else None,
    )


def staged_secret(
    key: KeyString, hashed: str, claim: Claim, caller: Caller, *, supplied: bool = False
) -> Secret:
    """Return a new key's first secret: it ends with its claim unless it is confirmed.

    Until then it does not administer either.
    """
    return Secret(
        id=key.public_id or keystring.random_text(keystring.ID_LENGTH),
        key_id=claim.key_id,
        lookup=key.lookup,
        hash=hashed,
        state="staged",
        supplied=supplied,
        run_id=claim.run_id,
        created_at=claim.staged_at,
        not_after=claim.deadline_at,
        administers=False,
        **issuer_of(caller),
    )


def answer_of(
    verdict: Judgement, secret_id: str | None, head: Head, settings: Settings, *, now: datetime
) -> dict[str, Any]:
    """Return the answer without the key string.  It is sent before the confirm, so it tells what will be true after it."""
    return {
        **views.key_view(replace(verdict.key, confirmed_at=now), now=now, public_id=secret_id),
        "filled": [
            {"field": item.field, "value": item.value, "source": item.source}
            for item in verdict.filled
        ],
        "warnings": [*warnings_about(verdict.key, settings), *verdict.warnings],
        "replayed": False,
        "audit": anchor(head),
    }


def warnings_about(key: Key, settings: Settings) -> list[str]:
    """Return what a person should know about *key* although it breaks no rule."""
    found = []
    if key.auto_rotate and key.sink is None and settings.default_sink is None:
        found.append(
            "auto_rotate has no sink that needs no person: keyctl rotate --due will report it as failed (no_sink)"
        )
    if key.send_invite_email and settings.smtp is None:
        found.append("send_invite_email: the configuration has no [smtp], so no mail is sent")
    if (
        key.soft_budget is not None
        and key.max_budget is not None
        and key.soft_budget > key.max_budget
    ):
        found.append("soft_budget is above max_budget and will never be reached")
    return [*found, *warnings_about_limits(key)]
