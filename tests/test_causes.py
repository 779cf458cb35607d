"""Causes are said in words: no class of a client, and nothing of what was sent."""

import http.client
import os
import smtplib
import socket
import ssl
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyctl import causes
from keyctl.causes import cause, cause_in_code
from keyctl.sinks.python import imported

SENT = "sk-Sent000000000_what-was-sent"


def within(outer: type[Exception], inner: Exception) -> Exception:
    """Return an error that was raised while another one was handled, as clients do."""
    try:
        try:
            raise inner
        except type(inner):
            raise outer(SENT)  # noqa: B904  # that is what clients do
    except outer as error:
        return error


class EndpointConnectionError(Exception):
    """What a client calls it when it cannot connect."""


class ParamValidationError(Exception):
    """What a client calls it when it is used wrongly."""


KINDS: list[tuple[Exception, str]] = [
    (ConnectionRefusedError(111, SENT), "the connection was refused"),
    (ConnectionResetError(104, SENT), "the connection was closed"),
    (BrokenPipeError(32, SENT), "the connection was closed"),
    (http.client.RemoteDisconnected(SENT), "the connection was closed"),
    (http.client.IncompleteRead(b"x"), "the connection was closed in the middle of the answer"),
    (http.client.BadStatusLine(SENT), "the answer is no HTTP"),
    (http.client.InvalidURL(SENT), "the URL is malformed"),
    (TimeoutError(SENT), "no answer in time"),
    (socket.gaierror(-2, SENT), "the name of the host is not known"),
    (urllib.error.URLError(ConnectionRefusedError(111, SENT)), "the connection was refused"),
    (urllib.error.URLError(socket.gaierror(-2, SENT)), "the name of the host is not known"),
    (ssl.SSLCertVerificationError(1, SENT), "the certificate is not trusted"),
    (ssl.SSLError(1, SENT), "no TLS connection could be made"),
    (ssl.SSLEOFError(8, SENT), "the connection was closed"),
    (OSError(113, SENT), "no route to host"),
    (OSError(SENT), "its client failed: os"),
    (FileNotFoundError(2, SENT), "there is no such file"),
    (PermissionError(13, SENT), "permission is denied"),
    (UnicodeDecodeError("utf-8", b"x", 0, 1, SENT), "it is no UTF-8 text"),
    (smtplib.SMTPServerDisconnected(SENT), "the connection was closed"),
    (smtplib.SMTPNotSupportedError(SENT), "the server does not offer what is asked of it"),
    (
        within(EndpointConnectionError, ConnectionRefusedError(111, SENT)),
        "the connection was refused",
    ),
    (within(EndpointConnectionError, TimeoutError(SENT)), "no answer in time"),
    (ParamValidationError(SENT), "its client failed: param validation"),
]


@pytest.mark.parametrize(("error", "words"), KINDS)
def test_each_kind_is_said_in_words(error: Exception, words: str) -> None:
    """What a person can look for, whoever raised it and however often it was wrapped."""
    assert cause(error) == words


def test_what_is_wrong_with_a_certificate_is_said() -> None:
    """OpenSSL's sentence tells an unknown authority from another host's certificate."""
    error = ssl.SSLCertVerificationError(1, SENT)
    error.verify_message = "self-signed certificate"

    assert cause(error) == "the certificate is not trusted: self-signed certificate"


CODE: list[tuple[str, str]] = [
    ("def f():\n    raise KeyError('sk-x')\n", "it raised KeyError (guard.py, line 2)"),
    ("def f():\n    open('/nowhere')\n", "there is no such file (guard.py, line 2)"),
    ("def f():\n    raise SystemExit(0)\n", "it ended the program"),
    ("def g():\n    pass\n", "its module has no 'f'"),
    ("import nowhere_at_all\n", "there is no module 'nowhere_at_all'"),
    ("def f(:\n", "guard.py, line 1, is no Python"),
]


@pytest.mark.parametrize(("text", "words"), CODE)
def test_a_function_of_the_configuration_is_told_where_it_failed(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its author knows Python: the kind of error, the file and the line, and not what it says."""
    (tmp_path / "guard.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "guard", raising=False)

    assert cause_in_code(failure(lambda: call("guard:f"))) == words


FOLDER = Path(os.__file__).parent
FILES: list[tuple[str, str]] = [
    (
        f"{Path(causes.__file__).parent}_guard.py",
        "it raised AttributeError (keyctl_guard.py, line 2)",
    ),
    (f"{FOLDER}_guard/guard.py", "it raised AttributeError (guard.py, line 2)"),
    (f"{FOLDER}/site-packages/guard.py", "it raised AttributeError (guard.py, line 2)"),
    (f"{FOLDER}/dist-packages/guard/hook.py", "it raised AttributeError (hook.py, line 2)"),
    (f"{Path(causes.__file__).parent}/guard.py", "its module has no 'x'"),
]


@pytest.mark.parametrize(("file", "words"), FILES)
def test_code_beside_keyctl_and_python_is_the_persons_own(file: str, words: str) -> None:
    """What is installed, and a name that begins as keyctl's does, is told with its line."""
    names: dict[str, Any] = {}
    exec(compile("def f():\n    return object.x\n", file, "exec"), names)  # noqa: S102  # as if there

    assert cause_in_code(failure(names["f"])) == words


def call(path: str) -> None:
    """Call a function as a sink does."""
    imported(path)()


def failure(step: Callable[[], None]) -> BaseException:
    """Return what *step* raises."""
    try:
        step()
    except BaseException as error:  # noqa: BLE001  # that is the question
        return error
    raise AssertionError
