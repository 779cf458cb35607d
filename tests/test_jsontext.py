"""JSON as it comes in, goes out, and is hashed."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyctl import jsontext
from keyctl.errors import MalformedRequestError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=0, max_value=10**9)
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


class TestComingIn:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "is not JSON"),
            ("{", "is not JSON"),
            ("{'a': 1}", "is not JSON"),
            ('{"a": 1,}', "is not JSON"),
            ('{"a": 1} {}', "is not JSON"),
            ("[]", "is not a JSON object"),
            ("1", "is not a JSON object"),
            ('{"a": 1, "a": 2}', "names 'a' twice"),
            ('{"a": {"b": 1, "b": 1}}', "names 'b' twice"),
            ('{"a": NaN}', "NaN is not a JSON number"),
            ('{"a": -Infinity}', "-Infinity is not a JSON number"),
            (b"\xff\xfe", "is not UTF-8"),
            (b'{"a": "\xff"}', "is not UTF-8"),
            ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "is nested too deep"),
            (" " * (jsontext.MAX_DOCUMENT + 1), "is larger than 4 MiB"),
        ],
    )
    def test_what_is_refused(self, text: str | bytes, said: str) -> None:
        """The document is named, the fault and its place told, its content not repeated."""
        with pytest.raises(MalformedRequestError) as refused:
            jsontext.load_document(text, what="the request")
        assert refused.value.message.startswith("the request")
        assert said in refused.value.message

    def test_numbers_keep_their_digits(self) -> None:
        """A fraction is a decimal, never a float."""
        document = jsontext.load_document('{"a": 0.1, "b": 1, "c": 1.10}', what="x")
        assert document == {"a": Decimal("0.1"), "b": 1, "c": Decimal("1.10")}
        assert [type(value) for value in document.values()] == [Decimal, int, Decimal]

    @pytest.mark.parametrize(
        ("document", "field"),
        [
            ({"a": "x\0"}, "a"),
            ({"a": ["", {"b": "\ud800"}]}, "a.1.b"),
            ({"a": {"b\0": 1}}, "a"),
            ({"\udfff": 1}, ""),
        ],
    )
    def test_strings_that_nothing_can_hold(self, document: Any, field: str) -> None:
        """A NUL or a lone surrogate anywhere is a violation that names the field."""
        assert [item.field for item in jsontext.check_strings(document)] == [field]

    def test_too_deep_is_a_violation(self) -> None:
        """Thirty-two levels are enough for metadata."""
        document: Any = "x"
        for _ in range(40):
            document = [document]
        assert [item.rule for item in jsontext.check_strings({"a": document})] == ["request.depth"]


class TestGoingOut:
    @given(document=DOCUMENTS)
    def test_what_is_written_is_read_back(self, document: Any) -> None:
        """Text, whole numbers and decimals survive exactly."""
        assert jsontext.loads(jsontext.dumps(document)) == document
        assert jsontext.dumps(document).isascii()

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(2030, 1, 31, 12, 0, tzinfo=UTC),
            datetime(2030, 1, 31, 14, 0, tzinfo=timezone(timedelta(hours=2))),
        ],
    )
    def test_instants_are_utc_with_z(self, moment: datetime) -> None:
        """Always 27 characters, whatever the zone and the microseconds."""
        assert jsontext.instant(moment) == "2030-01-31T12:00:00.000000Z"

    def test_a_float_that_is_no_number_is_refused(self) -> None:
        """No NaN ever gets into an answer."""
        with pytest.raises(ValueError, match="not JSON compliant"):
            jsontext.dumps(float("nan"))


class TestCanonical:
    @given(document=st.dictionaries(st.text(), DOCUMENTS))
    def test_the_order_of_names_does_not_matter(self, document: dict[str, Any]) -> None:
        """Two documents that are equal have one canonical form, and it is sorted JSON."""
        text = jsontext.canonical(document)
        assert text == jsontext.canonical(dict(reversed(document.items())))
        assert text.isascii()
        assert list(json.loads(text)) == sorted(document)

    def test_the_form_is_fixed(self) -> None:
        """Sorted names, no spaces, decimals and instants as text: old hashes stay true."""
        document = {
            "b": [1, Decimal("0.10"), None, True],
            "a": {"é": datetime(2030, 1, 31, 12, 0, 0, 5, tzinfo=UTC)},
        }
        assert jsontext.canonical(document) == (
            '{"a":{"\\u00e9":"2030-01-31T12:00:00.000005Z"},"b":[1,"0.10",null,true]}'
        )

    @pytest.mark.parametrize("document", [0.1, {"a": 0.1}, {"a": [{"b": (1, 0.5)}]}])
    def test_floats_have_none(self, document: Any) -> None:
        """A float's text is not its own, so it is refused wherever it hides."""
        with pytest.raises(TypeError, match="no canonical form"):
            jsontext.canonical(document)


@pytest.mark.parametrize("count", [0, 1, 1234])
def test_pieces_are_the_whole(count: int) -> None:
    """A long document that is written a piece at a time is the same, an iterator being an array."""
    items = [
        {"number": number, "share": Decimal("0.10"), "none": [], "text": "a\nb"}
        for number in range(count)
    ]
    rest: dict[str, Any] = {"ends": {"here": []}, "none": {}}

    pieces = list(jsontext.pieces({"items": iter(items), **rest}))

    assert max(map(len, pieces)) < 100_000
    assert "".join(pieces) == jsontext.dumps({"items": items, **rest}, indent=2)
