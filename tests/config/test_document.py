"""What a configuration file may say, and what holds where it says nothing."""

from dataclasses import fields

import pytest

from keyctl.config.document import Configuration, read, written
from keyctl.config.settings import Settings
from keyctl.errors import MalformedRequestError


def test_there_is_a_setting_for_each_field_of_the_file() -> None:
    """In the same order."""
    assert [item.name for item in fields(Settings)] == list(Configuration.model_fields)


def test_an_empty_file_says_what_holds_without_a_file() -> None:
    """The defaults stand in one place."""
    assert read({}) == Settings()


def test_what_a_file_says_is_what_holds() -> None:
    """And is written as the file says it, beside the defaults."""
    said = {"bcrypt_cost": 4, "reminders": {"key_expiring": "3d"}, "access_groups": {"g": ["m"]}}

    settings = read(said)

    assert (settings.bcrypt_cost, settings.access_groups) == (4, {"g": ["m"]})
    assert written(settings) == {
        **written(Settings()),
        **said,
        "reminders": {"key_expiring": "3d", "budget_at_percent": [80]},
    }


def test_a_field_that_does_not_exist_is_refused() -> None:
    """With the one that is like it."""
    with pytest.raises(MalformedRequestError, match="did you mean bcrypt_cost"):
        read({"bcrypt_costs": 4})
