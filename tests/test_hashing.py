"""How a key string is stored: bcrypt over its SHA-256."""

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyctl import hashing, keystring

KEY = keystring.mint()


def test_a_hash_matches_its_key_and_no_other() -> None:
    """Two hashes of one key differ, and both match it alone."""
    first, second = (hashing.hash_key(KEY, cost=4) for _ in range(2))
    assert first != second
    assert hashing.matches(KEY, hashed=first)
    assert hashing.matches(KEY, hashed=second)
    assert not hashing.matches(keystring.mint(), hashed=first)


def test_what_is_hashed_is_the_digest_in_hex() -> None:
    """Whoever knows the SHA-256 of a key, such as LiteLLM's table, can store it without the key."""
    assert bcrypt.checkpw(KEY.digest().encode(), hashing.hash_key(KEY, cost=4).encode())
    assert hashing.matches(KEY, hashed=hashing.hash_digest(KEY.digest(), cost=4))


def test_long_keys_that_begin_alike_differ() -> None:
    """bcrypt looks at 72 bytes only; the digest lets every character count."""
    first, second = (keystring.supplied("sk-" + "x" * 300 + end) for end in ("a", "b"))
    assert not hashing.matches(second, hashed=hashing.hash_key(first, cost=4))


@pytest.mark.parametrize("cost", [4, 5])
def test_the_cost_is_in_the_hash(cost: int) -> None:
    """The configured cost is what a thief has to pay."""
    assert hashing.hash_key(KEY, cost=cost).startswith(f"$2b$0{cost}$")


def test_only_digests_are_hashed() -> None:
    """A text of another length than a digest's is a mistake of the caller's."""
    with pytest.raises(ValueError, match="64 characters"):
        hashing.hash_digest("abc", cost=4)


@given(hashed=st.text(max_size=80))
@settings(deadline=None)
def test_a_malformed_hash_matches_nothing(hashed: str) -> None:
    """What a damaged row holds is an answer, not an error."""
    assert not hashing.matches(KEY, hashed=hashed)
