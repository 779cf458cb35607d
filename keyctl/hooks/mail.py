"""Send mail by SMTP: it names a key, its limits and how to fetch it, and never contains it."""

import smtplib
import ssl
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Final, Literal

from keyctl.causes import cause
from keyctl.hooks.base import HookFailedError, Message, secret_in

Security = Literal["starttls", "tls", "none"]

_TOLD: Final = (
    ("key_id", "key id"),
    ("key_alias", "alias"),
    ("team_id", "team"),
    ("user_id", "user"),
    ("organization_id", "organization"),
    ("models", "models"),
    ("max_budget", "budget in USD"),
    ("budget_duration", "budget period"),
    ("rpm_limit", "requests a minute"),
    ("tpm_limit", "tokens a minute"),
    ("max_parallel_requests", "parallel requests"),
    ("expires", "expires"),
    ("key_rotation_at", "next rotation"),
)
_SUBJECTS: Final = {
    "key_generated": "was made",
    "key_updated": "was changed",
    "key_rotated": "has a new secret",
    "key_deleted": "was deleted",
    "key_blocked": "was blocked",
    "key_unblocked": "was unblocked",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The SMTP server, and how to talk to it."""

    host: str
    port: int
    security: Security
    sender: str
    username: str | None
    password_file: str | None


class Mail:
    """Sends each event to one address; *fetch* tells how the key string is fetched, if there is a way."""

    def __init__(self, server: Server, *, to: str, fetch: str | None = None) -> None:
        self._server = server
        self._to = to
        self._fetch = fetch

    def send(self, message: Message, *, sent_at: datetime, timeout: float) -> None:
        """Hand the mail to the server.  Its Message-ID is the event's, at every attempt."""
        letter = self._letter(message)
        try:
            with _connected(self._server, timeout) as server:
                server.send_message(letter)
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            raise HookFailedError(_why(error)) from error

    def _letter(self, message: Message) -> EmailMessage:
        letter = EmailMessage()
        letter["Subject"] = _subject(message)
        letter["From"] = self._server.sender
        letter["To"] = self._to
        letter["Date"] = format_datetime(message.at)
        letter["Message-ID"] = f"<{message.id}@{self._server.sender.rpartition('@')[2]}>"
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(_text(message, self._fetch))
        return letter


def _connected(server: Server, timeout: float) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if server.security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=timeout, context=context
        )
    else:
        client = smtplib.SMTP(server.host, server.port, timeout=timeout)
    try:
        if server.security == "starttls":
            client.starttls(context=context)
        if server.username is not None and server.password_file is not None:
            client.login(server.username, _password(server.password_file))
    except BaseException:
        client.close()
        raise
    return client


def _password(path: str) -> str:
    text = secret_in(path, what="password_file")
    if not text.isascii():
        raise HookFailedError(
            "password_file: the password has characters that SMTP clients do not send; use ASCII"
        )
    return text


def _subject(message: Message) -> str:
    key = message.data.get("key")
    if key is None:
        return _line(f"keyctl: {message.event}: {message.data['object_id']}")
    named = key["key_alias"] or key["key_id"]
    return _line(f"API key {named} {_SUBJECTS.get(message.event, message.event)}")


def _text(message: Message, fetch: str | None) -> str:
    data = message.data
    key = data.get("key")
    if key is None:
        told = f"{message.event}: {data['object_type']} {data['object_id']}"
        return f"{_line(told)}\n{_footer(message)}"
    lines = [f"API key {key['key_id']} {_SUBJECTS.get(message.event, message.event)}.", ""]
    lines += [f"{label + ':':22}{_plain(key[name])}" for name, label in _TOLD if _is_set(key, name)]
    if message.event in ("key_generated", "key_rotated"):
        lines += ["", "The key itself is never sent by mail.", _how_to_fetch(data, fetch)]
    return "\n".join(lines) + "\n" + _footer(message)


def _how_to_fetch(data: dict[str, Any], fetch: str | None) -> str:
    if fetch is not None:
        return f"To fetch it: {_line(fetch)}"
    sink = data.get("sink", data["key"]["sink"])  # a rotation may have gone elsewhere
    if sink is not None:
        return f"It was delivered to {_line(sink)}, where its users find it."
    who = _line(data["changed_by"] or data["actor"])
    return f"It was shown once, to {who}; if it is lost: keyctl rotate {data['key']['key_id']}"


def _footer(message: Message) -> str:
    data = message.data
    on_behalf = f" on behalf of {data['changed_by']}" if data["changed_by"] else ""
    return (
        "\n-- \n"
        f"{_line(data['actor'] + on_behalf)}, {message.at:%Y-%m-%d %H:%M:%S} UTC,"
        f" audit event {data['seq']}, {message.id}\n"
    )


def _is_set(key: dict[str, Any], name: str) -> bool:
    return key.get(name) not in (None, [], {})


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return _line(", ".join(str(item) for item in value))
    return format(value, "f") if isinstance(value, Decimal) else _line(str(value))


def _line(text: str) -> str:
    # One line of what people typed: nothing of it may begin a header or a paragraph of its own.
    return "".join(char if char.isprintable() else " " for char in text)


def _why(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        kind = (
            "the login was refused: " if isinstance(error, smtplib.SMTPAuthenticationError) else ""
        )
        return f"{kind}SMTP {error.smtp_code}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = sorted({code for code, _ in error.recipients.values()})
        return f"the recipient was refused: SMTP {', '.join(map(str, codes))}"
    return cause(error)
