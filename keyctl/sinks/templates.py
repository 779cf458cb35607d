"""Names made from what is stable about a key, safe to use as a path or an argument."""

import re
from typing import Final
from urllib.parse import quote

from keyctl.errors import ConfigurationError, UsageError
from keyctl.sinks.base import Target

FIELDS: Final = ("key_id", "alias", "team", "user", "org")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def check_template(template: str) -> None:
    """Refuse placeholders that do not exist.

    Raises:
        ConfigurationError: There is one.
    """
    for name in _PLACEHOLDER.findall(template):
        if name not in FIELDS:
            raise ConfigurationError(
                f"there is no {{{name}}} in {template!r}",
                hint=f"use {', '.join('{' + field + '}' for field in FIELDS)}",
            )


def expand(template: str, target: Target) -> str:
    """Return *template* with its placeholders filled in, each percent-encoded.

    Everything but ``A-Z a-z 0-9 _ @ -`` and dots inside is encoded, so that no name can leave its
    folder, begin an option, or mean anything to another program.

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
        return encoded(text)

    return _PLACEHOLDER.sub(value, template)


def encoded(text: str) -> str:
    """Return *text* percent-encoded; dots at its ends too, because ``..`` is a folder."""
    inner = text.strip(".")
    if not inner:
        return "%2E" * len(text)
    start = len(text) - len(text.lstrip("."))
    end = len(text) - len(text.rstrip("."))
    return "%2E" * start + quote(inner, safe="@").replace("~", "%7E") + "%2E" * end
