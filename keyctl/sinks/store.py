"""Share what the secret managers have in common: what they hold of a key, what may be replaced, what an answer proves."""

import queue
import shlex
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from keyctl import keystring
from keyctl.causes import cause
from keyctl.errors import DeliveryError, FileTakenError, KeyctlError
from keyctl.keystring import KeyString
from keyctl.sinks.base import NotTakenError, Parcel, TakenError, Target, UnknownError
from keyctl.sinks.file import Replaceable

T = TypeVar("T")


class ForbiddenError(NotTakenError):
    """The credentials are good, but do not allow this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is stored of a key: its string, and beside it whose it is, so that no other key's is removed."""

    key: KeyString
    key_id: str
    key_alias: str | None
    secret_id: str

    def fields(self, found: "StoredKey | None" = None) -> dict[str, Any]:
        """Return the document with the key string in it, and what others keep beside it."""
        return {
            **(found.beside if found else {}),
            "key": self.key.reveal(),
            "key_id": self.key_id,
            "key_alias": self.key_alias,
            "secret_id": self.secret_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """What lies under a name: the key it says it is of, and the text that replacing it would lose.

    `text` is None where there is nothing that anybody could read.  `place` is the store's own
    word for what was read, for a write or a removal on the condition that it is still that.
    `beside` is what others keep beside the key.
    """

    key_id: str | None
    text: str | None = field(repr=False)
    place: Any = None
    beside: Mapping[str, Any] = field(default_factory=dict, repr=False)


# What the credentials do not allow to read: only what is not there yet can be written.
UNREADABLE: Final = StoredKey(key_id=None, text=None)


class StoreSink(ABC):
    """A secret manager: a network, a server and credentials that may each fail at any step.

    A subclass says how its server is asked.  Its client must not try anything twice by itself:
    a first try that was taken and a second one that is refused would look like *not taken*.
    """

    shows_answer = False

    def __init__(self, name: str, *, timeout: timedelta, replaceable: Replaceable) -> None:
        self.name = name
        self.timeout = timeout
        self._replaceable = replaceable
        self._target = Target(key_id=None)
        self._end = 0.0

    # --- what each store does in its own way

    @abstractmethod
    def _load(self) -> None:
        """Import the client, which may take longer than its server, and not on the server's time."""

    @abstractmethod
    def _open(self, target: Target) -> None:
        """Fill in the names, and get ready to ask."""

    @abstractmethod
    def _read(self) -> StoredKey | None:
        """Return what lies under the name, None if nothing does."""

    @abstractmethod
    def _write(self, document: Document, found: StoredKey | None) -> None:
        """Store the document as a new version over what was *found*, and only over that."""

    @abstractmethod
    def _is_current(self, document: Document) -> bool:
        """Read what is current now, and tell whether it is the document."""

    @abstractmethod
    def _erase(self, key_id: str) -> bool:
        """Remove what is this key's; tell whether anything was."""

    @abstractmethod
    def _place_name(self) -> str:
        """Return the filled-in name for messages."""

    def _refusal(
        self, status: int, code: str = "", *, forbidden: bool | None = None
    ) -> NotTakenError | UnknownError:
        """Return what an answer other than a success proves: after a 4xx, nothing was done."""
        said = (
            f"sink {self.name}: {self._place_name()}: the server answered {status} {code}".strip()
        )
        if forbidden or (forbidden is None and status == 403):
            return ForbiddenError(said)
        return NotTakenError(said) if 400 <= status < 500 else UnknownError(said)

    # --- what a sink does

    def check(self, target: Target) -> None:
        """Ask the server what lies under the key's name, and refuse to overwrite what is needed.

        Raises:
            UsageError: A template names what this key does not have, or makes no name.
            FileTakenError: Something is there that must stay.
            DeliveryError: The client is not installed, credentials are missing, or the server
                does not answer as it should.
        """
        self._load()
        self._begin(target)
        try:
            self._ask(lambda: self._open(target))
            self._refuse_taken(self._look())
        except TakenError as error:
            raise FileTakenError(
                str(error),
                hint="grant the right to read, or let the sink's template name another place",
            ) from None
        except (NotTakenError, UnknownError) as error:
            raise DeliveryError(
                str(error),
                hint="check the sink in the configuration, its server and its credentials",
            ) from None

    def deliver(self, parcel: Parcel) -> None:
        """Write the key string as a new version, read it back where that is allowed, and compare.

        Raises:
            NotTakenError: The server refused it, or was not asked.
            UnknownError: It may have been written.
        """
        self._begin(self._target)
        document = Document(
            key=parcel.key,
            key_id=self._target.key_id or "",
            key_alias=self._target.alias,
            secret_id=parcel.secret_id,
        )
        try:
            # Again: it may have come while the key was hashed and staged.
            found = self._look()
            self._refuse_taken(found)
        except (KeyctlError, UnknownError) as error:
            raise NotTakenError(str(error)) from None
        self._ask(lambda: self._write(document, found))
        self._compare(document)

    def remove(self, target: Target) -> bool:
        """Remove what is stored of this key; False when nothing of it is there.

        Raises:
            NotTakenError: It was certainly not removed.
            UnknownError: It may have been.
        """
        try:
            self._load()
            self._begin(target)
            self._ask(lambda: self._open(target))
        except (KeyctlError, UnknownError) as error:
            raise NotTakenError(str(error)) from None
        return self._ask(lambda: self._erase(target.key_id or ""))

    # --- parts

    def _begin(self, target: Target) -> None:
        self._target = target
        self._end = time.monotonic() + self.timeout.total_seconds()

    def _time_left(self) -> tuple[float, float]:
        """Return how long the next request may take to connect, and to be answered.

        Raises:
            NotTakenError: There is no time left to send one.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise NotTakenError(
                f"sink {self.name}: its time-out of {self.timeout.total_seconds():g} s was over"
            )
        return left / 4, left * 3 / 4

    def _ask(self, step: Callable[[], T]) -> T:
        """Run *step* until the time is over; what a client raises goes no further: it may hold what was sent.

        In a thread that is given up then: a server that sends a byte now and then never runs into
        a socket's own time-out, and clients look for credentials with time-outs of their own.
        """
        connect, answer = self._time_left()
        outcome: queue.Queue[tuple[T] | Exception] = queue.Queue()

        def run() -> None:
            try:
                outcome.put((step(),))
            except Exception as error:  # noqa: BLE001  # whatever it is, nobody knows then
                outcome.put(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            found = outcome.get(timeout=connect + answer)
        except queue.Empty:
            kind = f"no answer within {self.timeout.total_seconds():g} s"
        else:
            if isinstance(found, tuple):
                return found[0]
            if isinstance(found, (KeyctlError, NotTakenError, UnknownError)):
                raise found
            kind = cause(found)
        raise UnknownError(f"sink {self.name}: {self._place_name()}: {kind}")

    def _look(self) -> StoredKey | None:
        try:
            return self._ask(self._read)
        except ForbiddenError:
            return UNREADABLE

    def _refuse_taken(self, found: StoredKey | None) -> None:
        if found is None or found.text is None:
            return
        if found.key_id is not None and found.key_id == self._target.key_id:
            return
        lookups = _lookups_in(found.text)
        if not lookups or not self._replaceable(lookups, self._target.key_id):
            raise FileTakenError(
                f"{self._place_name()} holds something that is still needed, or is not keyctl's",
                hint="let the sink's template name another place, or remove what is there",
            )

    def _unseen(self) -> TakenError:
        """Return the refusal to write over what cannot be read."""
        return TakenError(
            f"sink {self.name}: {self._place_name()} holds something that may not be read, so"
            " nobody can tell whose it is; let its credentials read there"
        )

    def _compare(self, document: Document) -> None:
        try:
            is_current = self._ask(lambda: self._is_current(document))
        except ForbiddenError:
            return  # the server said that it has it, and we may not look
        except (NotTakenError, UnknownError) as error:
            raise UnknownError(f"written, but not read back: {error}") from None
        if not is_current:
            raise UnknownError(f"sink {self.name}: {self._place_name()} holds something else now")


def missing(extra: str) -> DeliveryError:
    """Return the error for a vendor's client that is not installed."""
    return DeliveryError(
        f"the {extra} client is not installed",
        hint=f"install it with: {shlex.quote(sys.executable)} -m pip install 'llm-keyctl[{extra}]'",
    )


def hush(*loggers: str) -> None:
    """Keep clients from logging what they send, even where somebody asked for all there is to log."""
    import logging  # noqa: PLC0415

    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)


def _lookups_in(text: str) -> set[str]:
    """Return what the database would find the key strings in *text* by."""
    whole = keystring.parse(text.strip())
    return keystring.public_ids(text) | ({whole.lookup} if whole else set())
