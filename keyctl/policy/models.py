"""Check model names: a key may use no more than its team, organization and user."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeVar

from keyctl.errors import Violation
from keyctl.nearest import each_meant, nearest
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule
from keyctl.records import Key, Organization, Presented, Principal, Team, User

Owner = TypeVar("Owner", bound=Principal)

INHERIT: Final = "all-team-models"
EVERYTHING: Final = ("*", "all-proxy-models", "all-team-models")
NO_PERSONAL: Final = "no-default-models"
# A gateway is asked by anybody with a key, as often as they like: it compares so many names at most.
_MOST_LIKENED: Final = 100


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


def is_allowed_by_name(model: str, allowed: Sequence[str]) -> bool:
    """Tell whether *model* is in *allowed*, in which an empty list allows nothing."""
    return bool(allowed) and is_allowed(model, allowed)


def may_use(
    model: str, key: Key, *, team: Team | None, organization: Organization | None, user: User | None
) -> bool:
    """Tell whether a request for *model* is within every list: the key's, and its owners' as they are now."""
    if user is not None and NO_PERSONAL in user.models:
        if team is None and not is_allowed_by_name(model, overridden(key, "user", user.id)):
            return False
        user = None
    if not is_allowed(model, key.models):
        return False
    owners = (("team", team), ("organization", organization), ("user", user))
    return all(
        is_allowed(model, record.models)
        or is_allowed_by_name(model, overridden(key, name, record.id))
        for name, record in owners
        if record is not None
    )


def overridden(key: Key, owner: str, owner_id: str) -> list[str]:
    """Return the models that an admin let *key* use although its *owner*'s list lacks them."""
    return [
        model
        for item in key.overrides
        if (item["rule"], item["owner"]) == (f"{owner}.models", f"{owner}:{owner_id}")
        for model in item["value"]
    ]


def with_groups(found: Presented, groups: Mapping[str, Sequence[str]]) -> Presented:
    """Return the key and its owners with the models of the groups that they name beside their names.

    A key that names groups, and no models, may use what is in its groups.
    """
    key = replace(found.key, models=expanded(named_models(found.key), groups))
    return replace(
        found,
        key=key,
        team=_with_members(found.team, groups),
        organization=_with_members(found.organization, groups),
        user=_with_members(found.user, groups),
    )


def _with_members(owner: Owner | None, groups: Mapping[str, Sequence[str]]) -> Owner | None:
    return None if owner is None else replace(owner, models=expanded(owner.models, groups))


def named_models(key: Key) -> list[str]:
    """Return the models and groups of models that *key* names; none means all that it inherits."""
    return [*key.models, *(key.gateway.get("access_group_ids") or ())]


def expanded(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return *names* with the models of each group among them behind its name."""
    return [model for name in names for model in (name, *groups.get(name, ()))]


def proper_names(names: Iterable[str]) -> list[str]:
    """Return the names in a list of models that stand for one model or group each."""
    special = (*EVERYTHING, NO_PERSONAL)
    return [name for name in names if "*" not in name and name not in special]


def nearest_usable(
    model: str, key: Key, *, team: Team | None, organization: Organization | None, user: User | None
) -> list[str]:
    """Return the names like *model* of what a request with the key would be served."""
    lists = [key.models, *(owner.models for owner in (team, organization, user) if owner)]
    names = dict.fromkeys(name for listed in lists for name in proper_names(listed))
    return [
        name
        for name in nearest(model, list(names)[:_MOST_LIKENED])
        if may_use(name, key, team=team, organization=organization, user=user)
    ]


def _check(facts: Facts, name: str, owner: Principal | None) -> Iterable[Violation]:
    if owner is None:
        return
    # An empty list and `all-team-models` inherit; what they inherit is checked where it is used.
    known = overridden(facts.key, name, owner.id)
    outside = [
        model
        for model in facts.key.models
        if model != INHERIT and model not in known and not is_allowed(model, owner.models)
    ]
    if outside:
        yield Violation(
            rule=f"{name}.models",
            field="models",
            message=f"not among the {name}'s models: {each_meant(outside, proper_names(owner.models))}",
            bound=list(owner.models),
            value=list(facts.key.models),
        )


def _team(facts: Facts) -> Iterable[Violation]:
    return _check(facts, "team", facts.team)


def _organization(facts: Facts) -> Iterable[Violation]:
    return _check(facts, "organization", facts.organization)


def _user(facts: Facts) -> Iterable[Violation]:
    if facts.user is None:
        return
    if NO_PERSONAL in facts.user.models:
        if facts.team is None and not overridden(facts.key, "user", facts.user.id):
            yield Violation(
                rule="user.models",
                field="models",
                message="the user may only use models through a team",
                bound=list(facts.user.models),
                value=list(facts.key.models),
            )
        return
    yield from _check(facts, "user", facts.user)


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
_OWNERS: Final = {
    "team.models": "team",
    "organization.models": "organization",
    "user.models": "user",
}


def kept_overrides(facts: Facts, stepped_over: Iterable[Violation]) -> list[dict[str, Any]]:
    """Return what is stored so that the rules stepped over are stepped over at use too.

    Rules that no request is judged by are not stored.
    """
    owners = {"team": facts.team, "organization": facts.organization, "user": facts.user}
    found = []
    for violation in stepped_over:
        name = _OWNERS.get(violation.rule)
        owner = owners[name] if name else None
        if owner is None:
            continue
        outside = [
            model
            for model in facts.key.models
            if model != INHERIT
            and (NO_PERSONAL in owner.models or not is_allowed(model, owner.models))
        ]
        found.append(
            {
                "rule": violation.rule,
                "field": violation.field,
                "value": outside,
                "owner": f"{name}:{owner.id}",
            }
        )
    return found


def lasting_overrides(before: Key, after: Key) -> list[dict[str, Any]]:
    """Return the stored overrides of *before* that outlive the change: same field, same owner."""
    owners = {f"{name}:{getattr(after, f'{name}_id')}" for name in ("team", "organization", "user")}
    return [
        item
        for item in before.overrides
        if item["owner"] in owners
        and getattr(before, item["field"]) == getattr(after, item["field"])
    ]
