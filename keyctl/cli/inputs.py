"""Read what comes in from stdin and files: requests, policies, key strings."""

import os
import sys
from pathlib import Path
from typing import Any, Final

from keyctl import jsontext
from keyctl.errors import UsageError

_LONGEST_KEY: Final = 4096


def read_document(source: str, *, what: str, most: int = jsontext.MAX_DOCUMENT) -> dict[str, Any]:
    """Return the JSON object of *most* bytes in the file *source*, or on stdin for ``-``.

    Raises:
        UsageError: It cannot be read.
        MalformedRequestError: It is no JSON object.
    """
    return jsontext.load_document(_read(source, most + 1, what=what), what=what, most=most)


def read_key(source: str, *, what: str) -> str:
    """Return the key string in the file *source*, or on stdin for ``-``, without one trailing newline.

    On a terminal it is asked for and not echoed.  Nothing of it is ever repeated.

    Raises:
        UsageError: There is none, or it is no text.
    """
    if source == "-" and sys.stdin.isatty():
        import getpass

        text = getpass.getpass("key: ", stream=sys.stderr)
    else:
        raw = _read(source, _LONGEST_KEY, what=what)
        if source == "-" and not raw:
            raise UsageError(
                "nothing came on stdin", hint='pipe the key in: printf %s "$KEY" | keyctl …'
            )
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"{what} is not text", hint="a key is printable ASCII") from None
        text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageError(f"{what} is empty", hint="check where the key should come from")
    return text


def _read(source: str, most: int, *, what: str) -> bytes:
    try:
        if source == "-":
            return sys.stdin.buffer.read(most)
        with Path(source).open("rb") as file:
            return file.read(most)
    except OSError as error:
        if source.lstrip().startswith("{"):  # not repeated: it may be long, or private
            raise UsageError(
                f"{what} is read from a file, and is no argument itself",
                hint="write it to a file and name that, or pipe it in and give -",
            ) from None
        raise UsageError(
            f"{what}: {source!r} cannot be read: {os.strerror(error.errno or 0)}",
            hint="check the path, or give - for stdin",
        ) from error
