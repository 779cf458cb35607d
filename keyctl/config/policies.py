"""Declare what the configuration file says of keys: their defaults, and rules for those with a team and those without."""

from keyctl.fields import Name, Strict
from keyctl.policy.documents import KeyDefaults, KeyRules, PersonalPolicy


class KeyDefaultsEverywhere(KeyDefaults):
    """Defaults of the configuration, which alone may also name an owner and a team."""

    user_id: Name | None = None
    team_id: Name | None = None


class KeyGenerationSettings(Strict):
    """LiteLLM's `key_generation_settings`."""

    team_key_generation: KeyRules | None = None
    personal_key_generation: PersonalPolicy | None = None
