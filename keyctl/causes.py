"""Say in words why a connection, a file or somebody's code failed.

Never what the error itself says: it may hold what was sent, a key string among it. And no names of
classes, which only who wrote the client knows.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

# By the full name of a class or of one that it descends from: so that nothing has to be imported
# to recognize it. The nearest one counts.
_WORDS: Final = {
    "builtins.ConnectionRefusedError": "the connection was refused",
    "builtins.ConnectionError": "the connection was closed",
    "builtins.TimeoutError": "no answer in time",
    "builtins.FileNotFoundError": "there is no such file",
    "builtins.IsADirectoryError": "it is a folder",
    "builtins.PermissionError": "permission is denied",
    "builtins.UnicodeError": "it is no UTF-8 text",
    "http.client.HTTPException": "the answer is no HTTP",
    "http.client.IncompleteRead": "the connection was closed in the middle of the answer",
    "http.client.InvalidURL": "the URL is malformed",
    "smtplib.SMTPException": "the server does not keep to SMTP",
    "smtplib.SMTPNotSupportedError": "the server does not offer what is asked of it",
    "smtplib.SMTPServerDisconnected": "the connection was closed",
    "socket.gaierror": "the name of the host is not known",
    "ssl.SSLError": "no TLS connection could be made",
    "ssl.SSLCertVerificationError": "the certificate is not trusted",
    "ssl.SSLEOFError": "the connection was closed",
}
# What OpenSSL says of a certificate: chosen by it among fixed sentences.
_VERIFIED: Final = "verify_message"
# Where a client keeps what its error came from, besides Python itself.
_INNER: Final = "reason"
_KEYCTL: Final = f"{Path(__file__).parent}{os.sep}"
_PYTHON: Final = f"{Path(os.__file__).parent}{os.sep}"
# In Python's own folder, and what somebody installed.
_INSTALLED: Final = tuple(f"{_PYTHON}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


def cause(error: BaseException) -> str:
    """Return why *error* came, from what lies at its bottom: who raised it may have wrapped it twice."""
    return _why(error) or f"its client failed: {_spelled(error)}"


def cause_in_code(error: BaseException) -> str:
    """Return why a function that the configuration names failed, and where in its own code."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"there is no module {error.name!r}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}, is no Python"
    if isinstance(error, SystemExit):
        return "it ended the program"
    place = _place(error.__traceback__)
    if isinstance(error, AttributeError) and place is None and error.name:
        return f"its module has no {error.name!r}"
    what = _why(error) or f"it raised {type(error).__name__}"
    return what if place is None else f"{what} ({place})"


def _why(error: BaseException) -> str | None:
    """Return the words for the first of what *error* came from that has some."""
    return next((words for found in _chain(error) if (words := _words(found))), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield what *error* was raised from, the first first, then itself."""
    chain: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting:
        found = waiting.pop()
        if any(found is item for item in chain):
            continue
        chain.append(found)
        context = None if found.__suppress_context__ else found.__context__
        linked = (getattr(found, _INNER, None), found.__cause__, context)
        waiting += [item for item in linked if isinstance(item, BaseException)]
    yield from reversed(chain)


def _words(error: BaseException) -> str | None:
    for kind in type(error).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name == "ssl.SSLCertVerificationError":
            return f"{_WORDS[name]}: {getattr(error, _VERIFIED, '')}".removesuffix(": ")
        if name in _WORDS:
            return _WORDS[name]
        if name == "builtins.OSError":
            # By its number: the text may be anybody's.
            number = getattr(error, "errno", None)
            return _lower(os.strerror(number)) if isinstance(number, int) and number > 0 else None
    return None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _spelled(error: BaseException) -> str:
    """Return the name of a kind of error as words."""
    name = re.sub(r"(Error|Exception)$", "", type(error).__name__)
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return " ".join(words).lower() or "without a word"


def _place(trace: TracebackType | None) -> str | None:
    """Return where somebody's code raised the error or called what did; None if keyctl itself did."""
    place = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(_KEYCTL):
            place = None
        elif not file.startswith((_PYTHON, "<")) or file.startswith(_INSTALLED):
            place = f"{Path(file).name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
