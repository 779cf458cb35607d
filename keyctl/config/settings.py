"""Hold what the configuration says, and what holds where it says nothing."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from keyctl import hashing

if TYPE_CHECKING:
    from keyctl.config.hooks import AnyHook, Reminders, Smtp
    from keyctl.config.policies import KeyDefaultsEverywhere, KeyGenerationSettings
    from keyctl.config.sinks import AnySink
    from keyctl.policy.documents import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the configuration file can say: the fields of `document.Configuration`.

    Apart from it, so that a command without a file imports neither pydantic nor the models.
    """

    default_key_generate_params: "KeyDefaultsEverywhere | None" = None
    upperbound_key_generate_params: "Bounds | None" = None
    key_generation_settings: "KeyGenerationSettings | None" = None
    key_alias_pattern: str | None = None
    disable_custom_api_keys: bool = False
    default_routes: list[str] = field(default_factory=list)
    access_groups: dict[str, list[str]] = field(default_factory=dict)
    custom_key_generate: str | None = None
    custom_key_generate_timeout: str = "10s"
    bcrypt_cost: int = hashing.DEFAULT_COST
    grace: str = "24h"
    require_caller_key: bool = False
    restricted: bool = False
    database_url_file: str | None = None
    budget_rollover: bool = False
    unsettled: Literal["charge", "release"] = "charge"
    sinks: "dict[str, AnySink]" = field(default_factory=dict)
    default_sink: str | None = None
    hooks: "dict[str, AnyHook]" = field(default_factory=dict)
    smtp: "Smtp | None" = None
    reminders: "Reminders | None" = None
    prune_after: str = "365d"
