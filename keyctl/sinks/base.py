"""Declare what a sink is, and the three answers it may give."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from keyctl import jsontext
from keyctl.keystring import KeyString

Format = Literal["key", "json", "env"]


class NotTakenError(Exception):
    """The sink proved that it did not take the key string."""


class TakenError(NotTakenError):
    """What lies at the place already may not be replaced, or nobody can tell whose it is."""


class UnknownError(Exception):
    """Nobody knows whether the sink took the key string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose key is delivered: what templates may name.  All are stable over a rotation but the alias."""

    key_id: str | None
    alias: str | None = None
    team: str | None = None
    user: str | None = None
    org: str | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is delivered: the key string, and the answer that describes it without it.

    `secret_id` is the id of the secret that the key string is.  `lock` is the descriptor of the
    run's lock file: whoever holds it keeps the claim alive.
    """

    key: KeyString
    answer: dict[str, Any]
    lock: int | None = None
    secret_id: str = field(kw_only=True)


class Sink(Protocol):
    """A place that takes one key string.  `shows_answer` is true where it prints the answer too."""

    name: str
    timeout: timedelta
    shows_answer: bool

    def check(self, target: Target) -> None:
        """Refuse before anything is written, if the delivery could not work.

        Raises:
            KeyctlError: It could not, and why.
        """

    def deliver(self, parcel: Parcel) -> None:
        """Take the key string.  Returning is the answer *taken*.

        Raises:
            NotTakenError: It certainly did not arrive.
            UnknownError: It may have arrived.
        """


@runtime_checkable
class Store(Sink, Protocol):
    """A sink that can also remove what it stores."""

    def remove(self, target: Target) -> bool:
        """Remove what is stored of this key, and nothing of another that came under its name.

        Returns False when nothing of this key is there: it is gone, or another key's by now.

        Raises:
            NotTakenError: It was certainly not removed.
            UnknownError: It may have been removed.
        """


def rendered(parcel: Parcel, form: Format, *, env_var: str = "OPENAI_API_KEY") -> bytes:
    """Return the bytes of *parcel*: the bare key, ``NAME=key``, or the whole answer as JSON."""
    if form == "env":
        text = env_line(parcel.key, env_var)
    elif form == "json":
        text = jsontext.dumps({"key": parcel.key.reveal(), **parcel.answer}, indent=2)
    else:
        text = parcel.key.reveal()
    return text.encode() + b"\n"


def env_line(key: KeyString, env_var: str) -> str:
    """Return ``NAME=key``, quoted: a caller-supplied key may hold characters that a shell reads."""
    import shlex  # noqa: PLC0415

    return f"{env_var}={shlex.quote(key.reveal())}"
