"""What is said of a document that is wrong."""

from typing import Any

import pytest

from keyctl.errors import MalformedRequestError
from keyctl.fields import Strict, validate
from keyctl.principals import TeamRequest, TierRequest
from keyctl.requests import GenerateRequest

BUDGET = {"max_budget": 1, "budget_duration": "1d"}


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\x07", "x" * 256], ids=["empty", "line", "bell", "long"]
)
@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (GenerateRequest, "model_max_budget", BUDGET),
        (GenerateRequest, "model_rpm_limit", 5),
        (GenerateRequest, "model_tpm_limit", 5),
        (GenerateRequest, "budget_fallbacks", ["o1"]),
        (TeamRequest, "model_rpm_limit", 5),
        (TeamRequest, "model_tpm_limit", 5),
        (TierRequest, "model_max_budget", BUDGET),
    ],
)
def test_a_name_in_a_dictionary_is_held_to_what_names_are(
    model: type[Strict], field: str, value: Any, name: str
) -> None:
    """The field is named, and the name as it can be read; no word of a library's."""
    document = {field: {name: value}, **({} if model is GenerateRequest else {"id": "web"})}

    with pytest.raises(MalformedRequestError) as caught:
        validate(model, document, what="the request")

    assert [(item.field, item.message) for item in caught.value.violations] == [
        (field, f"the name {name[:80]!r} must be 1 to 255 printable characters")
    ]
