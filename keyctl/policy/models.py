"""Check model names: a key may use no more than its team, organization and user."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from keyctl.errors import Violation
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule
from keyctl.records import Key, Organization, Team, User

INHERIT: Final = "all-team-models"
EVERYTHING: Final = ("*", "all-proxy-models", "all-team-models")
NO_PERSONAL: Final = "no-default-models"


def glob_matches(pattern: str, text: str) -> bool:
    """Tell whether *text* matches *pattern*, in which `*` stands for any characters.

    In linear steps and never as a regular expression: `gpt-3.5*` must not match `gpt-345`, and
    nobody's pattern may take exponential time.  A *text* that is itself a pattern matches only
    if everything it stands for does.
    """
    parts = pattern.split("*")
    if len(parts) == 1:
        return pattern == text
    if not text.startswith(parts[0]):
        return False
    position = len(parts[0])
    for part in parts[1:-1]:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(text) - len(parts[-1]) >= position and text.endswith(parts[-1])


def is_allowed(model: str, allowed: Sequence[str]) -> bool:
    """Tell whether *model* is in *allowed*; an empty list, `*` and the `all-…` names allow all.

    A bare name that LiteLLM knows also goes by its provider's: `openai/*` allows `gpt-4o`.
    """
    if not allowed or any(name in EVERYTHING for name in allowed):
        return True
    if model == "all-proxy-models":
        return False
    if any(glob_matches(name, model) for name in allowed):
        return True
    patterns = [name for name in allowed if "*" in name]
    provider = _providers().get(model) if patterns else None
    return provider is not None and any(
        glob_matches(pattern, f"{provider}/{model}") for pattern in patterns
    )


@cache
def _providers() -> Mapping[str, str]:
    """Return the provider of each bare model name that LiteLLM 1.110.2 knows one for."""
    document = json.loads(
        files("keyctl.policy").joinpath("model_providers.json").read_text("utf-8")
    )
    return {name: provider for provider, names in document.items() for name in names.split()}


def may_use(
    model: str, key: Key, *, team: Team | None, organization: Organization | None, user: User | None
) -> bool:
    """Tell whether a request for *model* is within every list: the key's, and its owners' as they are now."""
    if user is not None and NO_PERSONAL in user.models:
        if team is None:
            return False
        user = None
    owners = (team, organization, user)
    return all(is_allowed(model, record.models) for record in (key, *owners) if record is not None)


def _check(facts: Facts, name: str, allowed: Sequence[str] | None) -> Iterable[Violation]:
    # An empty list and `all-team-models` inherit; what they inherit is checked where it is used.
    outside = [
        model
        for model in facts.key.models
        if allowed is not None and model != INHERIT and not is_allowed(model, allowed)
    ]
    if outside:
        yield Violation(
            rule=f"{name}.models",
            field="models",
            message=f"not among the {name}'s models: {', '.join(outside)}",
            bound=list(allowed or ()),
            value=list(facts.key.models),
        )


def _team(facts: Facts) -> Iterable[Violation]:
    return _check(facts, "team", facts.team.models if facts.team else None)


def _organization(facts: Facts) -> Iterable[Violation]:
    return _check(facts, "organization", facts.organization.models if facts.organization else None)


def _user(facts: Facts) -> Iterable[Violation]:
    if facts.user is None:
        return
    if NO_PERSONAL in facts.user.models:
        if facts.team is None:
            yield Violation(
                rule="user.models",
                field="models",
                message="the user may only use models through a team",
                bound=list(facts.user.models),
                value=list(facts.key.models),
            )
        return
    yield from _check(facts, "user", facts.user.models)


RULES: Final = tuple(
    Rule(
        id=f"{name}.models",
        binds="key",
        overridable=True,
        demands=f"models are among the {name}'s (an empty list inherits)",
        check=check,
    )
    for name, check in (("team", _team), ("organization", _organization), ("user", _user))
)
