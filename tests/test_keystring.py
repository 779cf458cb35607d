"""The key string: minted, parsed, found in text; and what no string may be taken for one."""

import random
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyctl import keystring
from keyctl.errors import InvalidKeyStringError
from keyctl.keystring import ALPHABET


@given(draw=st.randoms(use_true_random=False))
def test_what_is_minted_is_parsed_back(draw: random.Random) -> None:
    """A minted string has the published form and parses to itself."""
    key = keystring.mint(draw=draw.randbytes)
    text = key.reveal()
    assert re.fullmatch(r"sk-[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", text)
    assert keystring.parse(text) == key
    assert (key.lookup, key.public_id) == (text[3:15], text[3:15])


@given(text=st.text())
def test_no_other_string_parses(text: str) -> None:
    """Whatever is not printable ASCII after sk- is no key string at all."""
    possible = re.fullmatch(r"sk-[!-~]{13,509}", text)
    assert (keystring.parse(text) is None) or possible


@given(text=st.from_regex(r"sk-[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", fullmatch=True))
def test_the_generated_form_needs_its_checksum(text: str) -> None:
    """A string of the generated form with another checksum is malformed, not a supplied key."""
    valid = keystring.checksum(text[:-6]) == text[-6:]
    assert (keystring.parse(text) is not None) is valid


def some_keys() -> list[str]:
    """Return a few minted strings, always the same ones."""
    generators = [random.Random(seed) for seed in range(5)]  # noqa: S311  # so that a failure repeats
    return [keystring.mint(draw=generator.randbytes).reveal() for generator in generators]


@pytest.mark.parametrize("text", some_keys())
class TestTypingErrors:
    def test_every_changed_character_is_noticed(self, text: str) -> None:
        """The checksum catches each of the single-character changes."""
        for place in range(3, len(text)):
            for other in ALPHABET:
                if other != text[place]:
                    changed = text[:place] + other + text[place + 1 :]
                    found = keystring.parse(changed)
                    assert found is None or found.public_id is None, changed

    def test_every_swap_of_two_neighbours_is_noticed(self, text: str) -> None:
        """The checksum catches each swap of two different neighbours."""
        for place in range(3, len(text) - 1):
            pair = text[place : place + 2]
            if pair[0] != pair[1]:
                swapped = text[:place] + pair[::-1] + text[place + 2 :]
                found = keystring.parse(swapped)
                assert found is None or found.public_id is None, swapped

    def test_every_cut_is_noticed(self, text: str) -> None:
        """A string that was cut, or has something behind it, is another one."""
        for length in range(len(text)):
            found = keystring.parse(text[:length])
            assert found is None or found.public_id is None
        longer = keystring.parse(text + "x")
        assert longer is None or longer.public_id is None


def test_each_character_is_equally_likely() -> None:
    """Every byte that is used maps to one of 62 characters, and each has four bytes."""
    everything = bytes(range(256))
    text = keystring.random_text(248, draw=lambda _: everything)
    assert {text.count(char) for char in ALPHABET} == {4}


def test_the_checksum_is_the_published_one() -> None:
    """CRC-32 in base62, most significant first: fixed for everybody who has a key."""
    assert keystring.checksum("sk-000000000000_" + "0" * 43) == "0AdzkN"


class TestSupplied:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("pk-0123456789abcdefghij", "does not start with sk-"),
            ("sk-0123456789", "13 characters"),
            ("sk-" + "a" * 510, "513 characters"),
            ("sk-0123456789 abcdef", "printable ASCII"),
            ("sk-0123456789äbcdef", "printable ASCII"),
            ("sk-0123456789\x00abcdef", "printable ASCII"),
            ("sk-0123456789abc\n", "printable ASCII"),
            ("sk-000000000000_" + "0" * 49, "wrong checksum"),
        ],
    )
    def test_what_cannot_be_a_key(self, text: str, said: str) -> None:
        """It is refused with the reason, and never repeated."""
        with pytest.raises(InvalidKeyStringError) as refused:
            keystring.supplied(text)
        assert said in refused.value.message
        assert text[3:] not in refused.value.message

    @pytest.mark.parametrize("length", [16, 512])
    def test_the_lengths_at_the_bounds(self, length: int) -> None:
        """16 and 512 characters are accepted, and found by the start of their SHA-256."""
        key = keystring.supplied("sk-" + "x" * (length - 3))
        assert (key.public_id, key.lookup) == (None, key.digest()[:32])

    @pytest.mark.parametrize(
        ("tail", "strong"),
        [
            ("0123456789abcdefghijKL", True),
            ("0123456789abcdefghijK", False),
            ("0123456789" * 3, True),
            ("012345678" * 3, False),
        ],
    )
    def test_strength(self, tail: str, strong: bool) -> None:
        """22 characters after sk-, ten of them different."""
        assert keystring.is_strong(f"sk-{tail}") is strong


class TestInText:
    @pytest.mark.parametrize(
        "text",
        [
            "desk-0123456789abcdef",
            "/run/keys/sk-0123456789abcdef",
            "sk-0123456789AB",
            "sk-0123456789AB…",
            "sk-0123456789AB...",
            "'sk-0123456789AB':",
            "risk-assessment-for-2030",
        ],
    )
    def test_names_and_handles_are_left_alone(self, text: str) -> None:
        """What is no key string is shown as it is."""
        assert (keystring.redact(text), keystring.looks_secret(text)) == (text, False)

    @pytest.mark.parametrize("around", ["{}", "key={}", '{{"key":"{}"}}', "({})", "--{}", "a {} b"])
    def test_key_strings_are_replaced_wherever_they_stand(self, around: str) -> None:
        """Generated and supplied ones, whole or cut."""
        for key in (some_keys()[0], some_keys()[0][:40], "sk-Supplied_by_a_person-0123456789"):
            text = around.format(key)
            assert keystring.looks_secret(text)
            assert key[:16] not in keystring.redact(text)
            assert "sk-[redacted]" in keystring.redact(text)

    def test_the_public_ids_in_a_file(self) -> None:
        """The ids of all strings of the generated form, whatever stands between them."""
        keys = some_keys()
        text = f"OPENAI_API_KEY={keys[0]}\n{keys[1]},{keys[2]}"
        assert keystring.public_ids(text) == {key[3:15] for key in keys[:3]}


def test_nothing_but_reveal_shows_the_secret() -> None:
    """Neither repr nor str of a key string holds it."""
    key = keystring.mint()
    assert key.reveal() not in f"{key!r} {key} {key.lookup} {key.public_id}"
    assert set(ALPHABET) == set(string.digits + string.ascii_letters)
