"""Make names from what is stable about a key, safe to use as a path or an argument."""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from keyctl.errors import ConfigurationError, UsageError
from keyctl.sinks.base import Target

FIELDS: Final = ("key_id", "alias", "team", "user", "org")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PROGRAM = re.compile(r"[\w./+-]+")
_DNS_PLAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DNS_KEPT: Final = frozenset("0123456789abcdefghijklmnopqrstuvwyz-")  # all but the x


def check_template(template: str) -> None:
    """Refuse placeholders that do not exist.

    Raises:
        ConfigurationError: There is one.
    """
    for name in _PLACEHOLDER.findall(template):
        if name not in FIELDS:
            # What stands there is not repeated: in braces people also write JSON, with a token.
            raise ConfigurationError(
                "what stands in braces is no field of a key",
                hint=f"use {', '.join('{' + field + '}' for field in FIELDS)}",
            )


def is_program(text: str) -> bool:
    """Tell whether *text* may be a program's name: a whole command line may hold a token."""
    return _PROGRAM.fullmatch(text) is not None


def first_placeholder(template: str) -> str:
    """Return the placeholder that *template* begins with, an empty text if with none."""
    found = _PLACEHOLDER.match(template)
    return found[0] if found else ""


def encoded(text: str) -> str:
    """Return *text* percent-encoded: everything but ``A-Z a-z 0-9 _ @ -`` and dots inside.

    So that no name can leave its folder, or mean anything to another program; dots at the ends
    too, because ``..`` is a folder.
    """
    inner = text.strip(".")
    if not inner:
        return "%2E" * len(text)
    start = len(text) - len(text.lstrip("."))
    end = len(text) - len(text.rstrip("."))
    return "%2E" * start + quote(inner, safe="@").replace("~", "%7E") + "%2E" * end


def dns_encoded(text: str) -> str:
    """Return *text* in lower-case letters, digits and hyphens; different texts stay different.

    A text that is a DNS name as it is, without ``--``, stays so.  Any other one is marked by
    ``x--`` in front, and what has no place in a name, and the x, is its bytes in hexadecimal
    after an x: ``a_b`` is ``x--ax5fb``.
    """
    if _DNS_PLAIN.fullmatch(text):
        return text
    last = len(text) - 1
    return "x--" + "".join(
        character
        if character in _DNS_KEPT and not (character == "-" and index == last)
        else "".join(f"x{byte:02x}" for byte in character.encode())
        for index, character in enumerate(text)
    )


def fill(template: str, value: str) -> str:
    """Return *template* with every placeholder replaced by the same *value*, to look at its form."""
    return _PLACEHOLDER.sub(lambda _: value, template)


def expand(template: str, target: Target, *, encode: Callable[[str], str] = encoded) -> str:
    """Return *template* with its placeholders filled in, each value made harmless by *encode*.

    Raises:
        UsageError: A value is empty: the name would not be this key's own.
    """

    def value(found: re.Match[str]) -> str:
        text = getattr(target, found[1])
        if not text:
            raise UsageError(
                f"the sink names {{{found[1]}}}, and this key has none",
                hint=f"give the key a {found[1]}, or use another sink",
            )
        return encode(text)

    return _PLACEHOLDER.sub(value, template)
