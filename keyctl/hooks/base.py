"""Declare what is sent to a hook, and what its failure means."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from keyctl import jsontext
from keyctl.causes import cause


class HookFailedError(Exception):
    """The hook did not take the event, or nobody knows; it is sent again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event on its way to one hook.

    `id` is the same at every attempt, so that who gets an event twice can tell.  `body` is the JSON
    text that was committed with the change, `data` what its `data` holds.  `lock` is the descriptor
    of the run's lock file: whoever holds it keeps the run's claim on the event alive.
    """

    id: str
    event: str
    at: datetime
    body: str
    data: dict[str, Any]
    lock: int | None = None


class Hook(Protocol):
    """A place that takes events, one at a time."""

    def send(self, message: Message, *, sent_at: datetime, timeout: float) -> None:
        """Send *message* within *timeout* seconds.  Returning means that it arrived.

        Raises:
            HookFailedError: It did not, or nobody knows.
        """


def as_json(message: Message) -> bytes:
    """Return the event as one JSON document: `id`, `type`, `timestamp` and `data`."""
    return jsontext.dumps({"id": message.id, **jsontext.loads(message.body)}).encode()


def secret_in(path: str, *, what: str) -> str:
    """Return what the file at *path* holds, without white space around it; *what* is its setting.

    Raises:
        HookFailedError: It cannot be read, or is empty.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        # The path is not repeated: it may be the secret itself, put in the wrong place.
        raise HookFailedError(
            f"{what}: the file that it names cannot be read: {cause(error)}"
        ) from error
    if not text:
        raise HookFailedError(f"{what}: the file that it names is empty")
    return text
