"""Declare what the configuration file may say, and validate one."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from keyctl import hashing
from keyctl.config.hooks import AnyHook, HookName, Reminders, Smtp
from keyctl.config.policies import KeyDefaultsEverywhere, KeyGenerationSettings
from keyctl.config.settings import Settings
from keyctl.config.sinks import AnySink, Function, Timeout
from keyctl.fields import DurationText, GraceText, Name, Names, Routes, Strict, refusal, validate
from keyctl.policy.documents import (
    Bounds,
    KeyRules,
    Pattern,
    PersonalPolicy,
    Policy,
)

_UNSAID: Final = Settings()


class Configuration(Strict):
    """Everything that the configuration file can say."""

    default_key_generate_params: KeyDefaultsEverywhere | None = None
    upperbound_key_generate_params: Bounds | None = None
    key_generation_settings: KeyGenerationSettings = KeyGenerationSettings.model_construct()
    key_alias_pattern: Pattern | None = None
    disable_custom_api_keys: bool = _UNSAID.disable_custom_api_keys
    default_routes: Routes = _UNSAID.default_routes
    access_groups: dict[Name, Names] = _UNSAID.access_groups
    custom_key_generate: Function | None = None
    custom_key_generate_timeout: Timeout = _UNSAID.custom_key_generate_timeout
    bcrypt_cost: Annotated[int, Field(ge=hashing.MIN_COST, le=hashing.MAX_COST)] = (
        _UNSAID.bcrypt_cost
    )
    grace: GraceText = _UNSAID.grace
    require_caller_key: bool = _UNSAID.require_caller_key
    restricted: bool = _UNSAID.restricted
    database_url_file: Annotated[str, Field(pattern="^/")] | None = None
    budget_rollover: bool = _UNSAID.budget_rollover
    unsettled: Literal["charge", "release"] = _UNSAID.unsettled
    sinks: dict[Name, AnySink] = _UNSAID.sinks
    default_sink: Name | None = None
    hooks: dict[HookName, AnyHook] = _UNSAID.hooks
    smtp: Smtp | None = None
    reminders: Reminders = Reminders.model_construct()
    prune_after: DurationText = _UNSAID.prune_after

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.restricted and self.database_url_file is None:
            raise refusal("restricted needs database_url_file: callers may not choose the database")
        if self.default_sink is not None and self.default_sink not in self.sinks:
            raise refusal(f"default_sink names no sink: {self.default_sink!r}")
        mailing = [name for name, hook in self.hooks.items() if hook.type == "mail"]
        if mailing and self.smtp is None:
            raise refusal(f"hook {mailing[0]!r} sends mail, and there is no [smtp]")
        return self


def read(document: Mapping[str, Any], *, what: str = "the configuration") -> Settings:
    """Return the settings that a parsed file says.

    Raises:
        MalformedRequestError: With one violation for each thing that is wrong.
    """
    said = validate(Configuration, document, what=what, schema="configuration")
    return Settings(**{name: getattr(said, name) for name in said.model_fields_set})


def written(settings: Settings) -> dict[str, Any]:
    """Return settings as a file could say them, those that hold unsaid among them."""
    said = {item.name: getattr(settings, item.name) for item in fields(settings)}
    document = Configuration.model_construct(
        **{name: value for name, value in said.items() if value is not None}
    )
    return document.model_dump(mode="json", exclude_none=True)


def everywhere(settings: Settings, *, of_team: bool) -> Policy:
    """Return the settings as the policy of the outermost layer, for a key of a team or for one without.

    A personal key's `required_params` are left to the rule of that name.
    """
    given = settings.key_generation_settings
    of_teams = None if given is None else given.team_key_generation
    own = (of_teams if of_team else personal(settings)) or KeyRules()
    rules = {name: getattr(own, name) for name in KeyRules.model_fields}
    if not of_team:
        rules["required_params"] = None
    return Policy.model_construct(
        **rules,
        default_key_generate_params=settings.default_key_generate_params,
        upperbound_key_generate_params=settings.upperbound_key_generate_params,
        key_alias_pattern=settings.key_alias_pattern,
    )


def personal(settings: Settings) -> PersonalPolicy | None:
    """Return what the settings say of keys without a team."""
    given = settings.key_generation_settings
    return None if given is None else given.personal_key_generation
