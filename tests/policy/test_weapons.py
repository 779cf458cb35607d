"""Nothing that a person may write makes keyctl work for long, or stands for something else."""

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from keyctl import durations, fields, jsontext, keystring, moments, money
from keyctl.cli.delivery import check_names
from keyctl.errors import InvalidMoneyError, KeyctlError, MalformedRequestError, UsageError
from keyctl.fields import validate
from keyctl.policy import models, patterns
from keyctl.policy.documents import parse_policy
from keyctl.requests import GenerateRequest

MEGABYTE = 1_000_000
# CPU time, which neighbours on the same machine do not lengthen; the promise is 0.1 s.
LIMIT = 0.1
TEXTS = {
    "one character": "a" * MEGABYTE,
    "digits": "1" * MEGABYTE,
    "a long number and a unit": "1" * MEGABYTE + "d",
    "blanks": " " * MEGABYTE,
    "dashes": "-" * MEGABYTE,
    "brackets": "[" * MEGABYTE,
    "nested objects": '{"a":' * (MEGABYTE // 5),
    "key strings": "sk-aaaaaaaaaaaaaaaa " * (MEGABYTE // 20),
    "a key string": "sk-" + "a" * MEGABYTE,
    "beginnings of key strings": "sk-" * (MEGABYTE // 3),
    "a number with a long exponent": '{"a":1e' + "9" * MEGABYTE + "}",
    "names": "{" + ",".join(f'"k{number}":1' for number in range(80_000)) + "}",
}
PARSERS: dict[str, Callable[[str], object]] = {
    "duration": durations.parse_duration,
    "period": durations.parse_period,
    "grace": fields.parse_grace,
    "instant": moments.parse_instant,
    "money": money.parse_money,
    "JSON": lambda text: jsontext.load_document(text, what="x"),
    "key string": keystring.parse,
    "supplied key string": keystring.supplied,
    "public handle": keystring.public_handle,
    "redaction": keystring.redact,
    "pattern": lambda text: parse_policy({"key_alias_pattern": text}),
}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Hold the block to so much CPU time; what it refuses is refused."""
    # What a thousand tests before this one have left is not looked through meanwhile.  Collecting it
    # before took 0.7 s each time, a tenth of the whole suite.
    gc.freeze()
    begun = time.thread_time()
    said = ""
    try:
        yield
    except (KeyctlError, ValueError) as error:
        said = str(error)
    spent = time.thread_time() - begun
    gc.unfreeze()
    assert spent < seconds
    assert len(said) < 1000  # what was given is not repeated whole


class TestOneMegabyte:
    @pytest.mark.parametrize("text", TEXTS)
    @pytest.mark.parametrize("parser", PARSERS)
    def test_no_parser_takes_long(self, parser: str, text: str) -> None:
        """Whatever it is, it is read or refused at once."""
        with within(LIMIT):
            PARSERS[parser](TEXTS[text])

    @pytest.mark.parametrize("field", sorted(GenerateRequest.model_fields))
    def test_no_field_takes_long(self, field: str) -> None:
        """Each field of a request with a megabyte in it."""
        for value in (TEXTS["one character"], TEXTS["a key string"], TEXTS["digits"]):
            with within(LIMIT):
                validate(GenerateRequest, {field: value}, what="the request")

    def test_a_body_of_unknown_names(self) -> None:
        """100,000 of them: answered in under a second, the first ones by name, all of them counted."""
        body = json.dumps({f"n{number:06}": 1 for number in range(100_000)})

        begun = time.thread_time()
        document = jsontext.load_document(body, what="the request")
        with pytest.raises(MalformedRequestError) as caught:
            validate(GenerateRequest, document, what="the request")

        assert time.thread_time() - begun < 1
        assert "(and 99999 more)" in caught.value.message
        assert [item.field for item in caught.value.violations[:2]] == ["n000000", "n000001"]
        assert len(caught.value.violations) == 100

    def test_model_patterns(self) -> None:
        """Stars are matched step by step."""
        for pattern in ("a*" * 100_000, "*a" * 500 + "b", "*" + "a" * 1000 + "b*"):
            with within(LIMIT):
                models.glob_matches(pattern, TEXTS["one character"])


class TestPatterns:
    def test_one_that_backtracks_for_ever_elsewhere(self) -> None:
        """Linear time: a megabyte, let alone 39 letters and an underscore."""
        with within(LIMIT):
            assert not patterns.matches("([a-z0-9]+-?)+", "a" * 39 + "_")
            assert not patterns.matches("([a-z0-9]+-?)+", "a" * MEGABYTE + "_")

    @pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "[", "(", "a{1,1001}"])
    def test_what_cannot_be_matched_so_is_refused_when_it_is_written(self, pattern: str) -> None:
        """Exit 2 with the reason, and nothing on stderr from the library."""
        with pytest.raises(MalformedRequestError, match="RE2 accepts"):
            parse_policy({"key_alias_pattern": pattern})

    @pytest.mark.parametrize(
        ("pattern", "alias", "expected"),
        [
            ("ci-[0-9]+", "ci-7", True),
            ("ci-[0-9]+", "ci-7 ", False),
            ("a|b", "ab", False),
            ("(?i)CI-.*", "ci-x", True),
            ("[^x]+", "é", True),
        ],
    )
    def test_the_whole_alias_counts(self, pattern: str, alias: str, *, expected: bool) -> None:
        """As LiteLLM's `re.fullmatch`."""
        assert patterns.matches(pattern, alias) == expected


class TestMoney:
    @pytest.mark.parametrize(
        "amount", ["1e-999999999", "1e-10", "0." + "1" * MEGABYTE, "5." + "0" * 70 + "1", "1e-400"]
    )
    def test_what_is_too_fine_is_refused(self, amount: str) -> None:
        """Neither zero nor a rounded number: exit 2."""
        with pytest.raises(InvalidMoneyError, match="more than 9 decimals"):
            money.to_nano(Decimal(amount))

    @pytest.mark.parametrize("amount", ["1e-999999999", "1e-12", "0.000000001"])
    def test_no_cost_is_free(self, amount: str) -> None:
        """What is recorded is rounded up to a nano-dollar, however small."""
        assert money.round_up(Decimal(amount)) == 1

    def test_a_body(self) -> None:
        """In a request it is the field's violation."""
        body: dict[str, Any] = jsontext.load_document('{"max_budget": 1e-999999999}', what="x")

        with pytest.raises(MalformedRequestError, match="max_budget"):
            validate(GenerateRequest, body, what="the request")


class TestVariables:
    @pytest.mark.parametrize(
        "name",
        [
            "PATH",
            "Path",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "DYLD_INSERT_LIBRARIES",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PROMPT_COMMAND",
            "PS1",
            "SHELLOPTS",
            "NODE_OPTIONS",
            "PERL5LIB",
            "RUBYOPT",
            "GIT_SSH_COMMAND",
            "HOME",
            "KEYCTL_DATABASE_URL",
            "SSL_CERT_FILE",
        ],
    )
    def test_names_that_change_how_programs_run_are_refused(self, name: str) -> None:
        """Exit 2: a key there would break or steer what reads the line."""
        with pytest.raises(UsageError, match="changes how programs run"):
            check_names(name, "env")

    @pytest.mark.parametrize("name", ["OPENAI_API_KEY", "LITELLM_KEY", "KEYCTL_API_KEY", "_KEY"])
    def test_others_are_taken(self, name: str) -> None:
        """Any other name of a variable will do."""
        check_names(name, "env")
