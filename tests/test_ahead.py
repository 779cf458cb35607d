"""One key string is minted and hashed while a command is still being imported."""

from harness import Cli

from keyctl import hashing
from keyctl.ahead import Ahead

COST = hashing.MIN_COST


def test_the_first_string_is_the_one_that_is_hashed() -> None:
    """Its hash is what `hash_key` makes: of this string, at this cost."""
    ahead = Ahead(COST)
    key = ahead.mint()

    hashed = ahead.hash(key, cost=COST)

    assert hashing.matches(key, hashed=hashed)
    assert hashed.startswith(f"$2b$0{COST}$")


def test_no_string_is_given_twice() -> None:
    """A second try of the same command gets a new one, with a hash of its own."""
    ahead = Ahead(COST)
    first, second = ahead.mint(), ahead.mint()

    assert first.reveal() != second.reveal()
    assert hashing.matches(second, hashed=ahead.hash(second, cost=COST))
    assert hashing.matches(first, hashed=ahead.hash(first, cost=COST))


def test_another_cost_is_not_what_was_made() -> None:
    """The cost that is asked for is the one that is paid."""
    ahead = Ahead(COST)

    assert ahead.hash(ahead.mint(), cost=COST + 1).startswith(f"$2b$0{COST + 1}$")


def test_a_refusal_meanwhile_is_told_as_any(cli: Cli) -> None:
    """The hash that nobody needs is waited for, and changes neither the error nor the exit code."""
    cli.configure("bcrypt_cost = 13\n")

    done = cli("generate", "--team", "nowhere", "-o", "json")

    assert (done.exit_code, done.stdout, done.error["code"]) == (3, "", "team_not_found")
