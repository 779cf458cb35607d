"""Check what policies ask of a key besides numbers: alias, expiry, tags, rotation, how many, whose."""

from collections.abc import Callable, Iterable
from typing import Final

from keyctl import durations
from keyctl.errors import Violation
from keyctl.nearest import each_meant
from keyctl.policy import patterns
from keyctl.policy.bounds import LAYERS, layer
from keyctl.policy.documents import Policy
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule

_PolicyCheck = Callable[[Facts, Policy, str], Iterable[Violation]]


def _alias_pattern(facts: Facts, policy: Policy, name: str) -> Iterable[Violation]:
    pattern, alias = policy.key_alias_pattern, facts.key.key_alias
    if pattern is not None and (alias is None or not patterns.matches(pattern, alias)):
        yield Violation(
            rule=f"{name}.key_alias_pattern",
            field="key_alias",
            message="the alias does not match the pattern",
            bound=pattern,
            value=alias,
        )


def _require_expiry(facts: Facts, policy: Policy, name: str) -> Iterable[Violation]:
    if policy.require_expiry and facts.key.expires is None:
        yield Violation(
            rule=f"{name}.require_expiry", field="expires", message="a key must expire", bound=True
        )


def _rotation(facts: Facts, policy: Policy, name: str) -> Iterable[Violation]:
    bound, interval = policy.max_rotation_interval, facts.key.rotation_interval
    if bound is None:
        return
    if interval is None or durations.parse_duration(interval).exceeds(
        durations.parse_duration(bound), start=facts.now
    ):
        yield Violation(
            rule=f"{name}.max_rotation_interval",
            field="rotation_interval",
            message="the key must rotate at least this often",
            bound=bound,
            value=interval,
        )


def _tags(facts: Facts, policy: Policy, name: str) -> Iterable[Violation]:
    if policy.allowed_tags is None:
        return
    outside = [tag for tag in facts.key.tags if tag not in policy.allowed_tags]
    if outside:
        yield Violation(
            rule=f"{name}.allowed_tags",
            field="tags",
            message=f"not among the allowed tags: {each_meant(outside, policy.allowed_tags)}",
            bound=list(policy.allowed_tags),
            value=list(facts.key.tags),
        )


def _required(facts: Facts, policy: Policy, name: str) -> Iterable[Violation]:
    yield from missing_params(facts, policy.required_params, f"{name}.required_params")


def _max_keys(facts: Facts, policy: Policy, name: str) -> Iterable[Violation]:
    sums = {"team": facts.team_sums, "organization": facts.organization_sums}.get(
        name, facts.all_sums
    )
    moved = (
        facts.before is None
        or (name == "team" and facts.before.team_id != facts.key.team_id)
        or (name == "organization" and facts.before.organization_id != facts.key.organization_id)
    )
    if policy.max_keys is not None and moved and sums.keys >= policy.max_keys:
        yield Violation(
            rule=f"{name}.max_keys",
            field="team_id"
            if name == "team"
            else "organization_id"
            if name == "organization"
            else "",
            message="there may be no more live keys",
            bound=policy.max_keys,
            value=sums.keys + 1,
        )


def missing_params(facts: Facts, required: Iterable[str] | None, rule: str) -> Iterable[Violation]:
    """Yield a violation for each required field that the request does not name with a value."""
    if facts.operation not in ("generate", "import") and not facts.moved:
        return
    for param in required or ():
        if param not in facts.given:
            yield Violation(rule=rule, field=param, message="is required", bound=param)


def _in_layer(name: str, check: _PolicyCheck) -> Callable[[Facts], Iterable[Violation]]:
    def run(facts: Facts) -> Iterable[Violation]:
        policy = layer(facts, name)
        return check(facts, policy, name) if policy else ()

    return run


_FAMILIES: Final[tuple[tuple[str, str, _PolicyCheck], ...]] = (
    ("required_params", "the request names every required field", _required),
    ("key_alias_pattern", "the alias matches the pattern as a whole", _alias_pattern),
    ("require_expiry", "the key expires", _require_expiry),
    ("max_rotation_interval", "the key rotates, and at least this often", _rotation),
    ("allowed_tags", "every tag is an allowed one", _tags),
    ("max_keys", "there are at most so many live keys", _max_keys),
)


def _personal_required(facts: Facts) -> Iterable[Violation]:
    personal = facts.layers.personal
    if personal is not None and facts.key.team_id is None:
        yield from missing_params(facts, personal.required_params, "personal.required_params")


def _strength(facts: Facts) -> Iterable[Violation]:
    if facts.supplied_is_strong is False:
        yield Violation(
            rule="key.strength",
            field="key",
            message="a supplied key needs 22 characters after sk-, 10 of them different",
            bound=22,
        )


def _custom(facts: Facts) -> Iterable[Violation]:
    if facts.supplied_is_strong is not None and facts.layers.custom_keys_disabled:
        yield Violation(
            rule="key.custom", field="key", message="supplied keys are disabled", bound=False
        )


def _rotatable(facts: Facts) -> Iterable[Violation]:
    if facts.rotated != "active":
        yield Violation(
            rule="key.rotatable",
            field="state",
            message=f"the key is {facts.rotated}, and a rotation revives nothing",
            bound="active",
            value=facts.rotated,
        )


def _blocked(name: str) -> Callable[[Facts], Iterable[Violation]]:
    def run(facts: Facts) -> Iterable[Violation]:
        owner = {"team": facts.team, "organization": facts.organization, "user": facts.user}[name]
        if owner is not None and owner.blocked:
            yield Violation(
                rule=f"{name}.blocked",
                field=f"{name}_id",
                message=f"the {name} is blocked",
                bound=False,
                value=owner.id,
            )

    return run


def _owner_member(facts: Facts) -> Iterable[Violation]:
    if facts.team is not None and facts.user is not None and facts.owner_team_role is None:
        yield Violation(
            rule="team.owner_member",
            field="user_id",
            message=f"user {facts.user.id!r} is not a member of team {facts.team.id!r}",
            bound=facts.team.id,
            value=facts.user.id,
        )


def _owner_of_organization(facts: Facts) -> Iterable[Violation]:
    if (
        facts.team is None
        and facts.organization is not None
        and facts.user is not None
        and facts.owner_organization_role is None
    ):
        yield Violation(
            rule="organization.owner_member",
            field="user_id",
            message=(
                f"user {facts.user.id!r} is not a member of organization {facts.organization.id!r}"
            ),
            bound=facts.organization.id,
            value=facts.user.id,
        )


def _team_organization(facts: Facts) -> Iterable[Violation]:
    own = facts.team.organization_id if facts.team else None
    if own is not None and facts.key.organization_id != own:
        yield Violation(
            rule="team.organization",
            field="organization_id",
            message="the team belongs to another organization",
            bound=own,
            value=facts.key.organization_id,
        )


def _service_account(facts: Facts) -> Iterable[Violation]:
    if facts.key.service_account and (facts.key.user_id is not None or facts.key.team_id is None):
        yield Violation(
            rule="key.service_account",
            field="user_id" if facts.key.user_id else "team_id",
            message="a service account belongs to a team and to no user",
        )


def _fixed(
    rule: str,
    demands: str,
    check: Callable[[Facts], Iterable[Violation]],
    *,
    overridable: bool = True,
) -> Rule:
    return Rule(id=rule, binds="key", overridable=overridable, demands=demands, check=check)


RULES: Final = (
    *(
        _fixed(f"{name}.{family}", f"{demands} ({name} policy)", _in_layer(name, check))
        for family, demands, check in _FAMILIES
        for name in LAYERS
    ),
    _fixed(
        "personal.required_params",
        "a key without a team names every required field",
        _personal_required,
    ),
    _fixed(
        "key.strength",
        "a supplied key has 22 characters after sk-, at least 10 different",
        _strength,
        overridable=False,
    ),
    _fixed(
        "key.rotatable",
        "a key that is rotated is neither blocked, expired, deleted nor pending",
        _rotatable,
        overridable=False,
    ),
    _fixed("key.custom", "keys are generated, not supplied, where that is disabled", _custom),
    _fixed(
        "key.service_account",
        "a service account belongs to a team and to no user",
        _service_account,
        overridable=False,
    ),
    *(
        # Nor would the key work: a verifier refuses the keys of a blocked owner.
        _fixed(f"{name}.blocked", f"the {name} is not blocked", _blocked(name), overridable=False)
        for name in ("team", "organization", "user")
    ),
    _fixed("team.owner_member", "the owner is a member of the team", _owner_member),
    _fixed(
        "organization.owner_member",
        "the owner of a key without a team is a member of its organization",
        _owner_of_organization,
    ),
    _fixed(
        "team.organization",
        "the key's organization is the team's",
        _team_organization,
        overridable=False,
    ),
)
