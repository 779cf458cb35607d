"""Mint, parse and find the key string ``sk-<id>_<secret><check>``.  Pure.

Nothing here touches a database or a clock, and nothing but `KeyString.reveal` hands out a
secret as text.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from keyctl.errors import InvalidKeyStringError

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX: Final = "sk-"
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 43  # 43 base62 characters are 256.03 bits
CHECK_LENGTH: Final = 6  # 62**6 > 2**32

SUPPLIED_MIN: Final = 16
SUPPLIED_MAX: Final = 512
STRONG_LENGTH: Final = 22
STRONG_VARIETY: Final = 10

_BASE62 = (ALPHABET * 5)[:256].encode("ascii")
_UNEVEN = bytes(range(256 - 256 % len(ALPHABET), 256))

_GENERATED = re.compile(r"sk-([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)
_SUPPLIED = re.compile(rf"sk-[!-~]{{{SUPPLIED_MIN - 3},{SUPPLIED_MAX - 3}}}")
_HANDLE = re.compile(r"sk-([0-9A-Za-z]{12})(?:…|\.\.\.)?")
# A word that starts like a key and is longer than a public handle.  Not preceded by a letter,
# a slash, …: `desk-…` is a name and `/run/sk-…` a path; but `--sk-…` is a slip of the hand.
_LOOKS_SECRET = re.compile(r"(?:(?<![0-9A-Za-z_/.-])|(?<=--))sk-[!-~]{13,}")


@dataclass(frozen=True, slots=True)
class KeyString:
    """A key string in the clear: shown once, never stored, never logged.

    `lookup` is what the database finds it by: the public id of a string of the generated
    form, else the first 32 hex characters of its SHA-256.  `public_id` is None for the latter.
    """

    lookup: str
    public_id: str | None
    _text: str = field(repr=False)

    def reveal(self) -> str:
        """Return the whole key string; the only way to get at it as text."""
        return self._text

    def digest(self) -> str:
        """Return the SHA-256 of the whole string in hex: what bcrypt hashes."""
        return _sha256(self._text)


def random_text(length: int, *, draw: Callable[[int], bytes] | None = None) -> str:
    """Return *length* base62 characters from the operating system's CSPRNG.

    Bytes from 248 up are thrown away, so that each character is equally likely.
    """
    if draw is None:
        import secrets  # noqa: PLC0415  # help has no use for it

        draw = secrets.token_bytes
    text = ""
    while len(text) < length:
        text += draw(length + 8).translate(_BASE62, _UNEVEN).decode("ascii")
    return text[:length]


def checksum(body: str) -> str:
    """Return the CRC-32 of *body* as six base62 digits, most significant first.

    A typo filter and a mark for secret scanners, after GitHub's token format
    (https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/);
    not authentication.
    """
    rest = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECK_LENGTH):
        rest, digit = divmod(rest, 62)
        digits = ALPHABET[digit] + digits
    return digits


def mint(*, draw: Callable[[int], bytes] | None = None) -> KeyString:
    """Return a new key string of 256 random bits under a random public id."""
    public_id = random_text(ID_LENGTH, draw=draw)
    body = f"{PREFIX}{public_id}_{random_text(SECRET_LENGTH, draw=draw)}"
    return KeyString(public_id, public_id, body + checksum(body))


def parse(text: str) -> KeyString | None:
    """Return the key string that *text* is, or None; strangers type things.

    Shape decides: a string of the generated form needs a valid checksum, any other one only
    has to be a possible caller-supplied key.
    """
    if found := _GENERATED.fullmatch(text):
        body = text[:-CHECK_LENGTH]
        if checksum(body) != found[3]:
            return None
        return KeyString(found[1], found[1], text)
    if _SUPPLIED.fullmatch(text) is None:
        return None
    return KeyString(_sha256(text)[:32], None, text)


def supplied(text: str) -> KeyString:
    """Return the key string of a caller-supplied *text*.

    Raises:
        InvalidKeyStringError: It cannot be a key at all.  The text is not repeated.
    """
    if not text.startswith(PREFIX):
        raise InvalidKeyStringError("the supplied key does not start with sk-")
    if not SUPPLIED_MIN <= len(text) <= SUPPLIED_MAX:
        raise InvalidKeyStringError(
            f"the supplied key has {len(text)} characters; {SUPPLIED_MIN} to {SUPPLIED_MAX} are accepted"
        )
    if _SUPPLIED.fullmatch(text) is None:
        raise InvalidKeyStringError(
            "the supplied key has characters other than printable ASCII without spaces"
        )
    found = parse(text)
    if found is None:
        raise InvalidKeyStringError(
            "the supplied key has the form of a generated key but a wrong checksum",
            hint="it was mistyped or cut; let keyctl generate one instead",
        )
    return found


def is_strong(text: str) -> bool:
    """Tell whether a caller-supplied *text* has enough characters, and different ones (`key.strength`)."""
    tail = text.removeprefix(PREFIX)
    return len(tail) >= STRONG_LENGTH and len(set(tail)) >= STRONG_VARIETY


def public_handle(text: str) -> str | None:
    """Return the public id in ``sk-<id>`` or ``sk-<id>…`` as logs show it, else None."""
    found = _HANDLE.fullmatch(text)
    return found[1] if found else None


def public_ids(text: str) -> set[str]:
    """Return the public ids of all generated-form key strings in *text*, checksum or not."""
    return {found[1] for found in _GENERATED.finditer(text)}


def looks_secret(text: str) -> bool:
    """Tell whether *text* holds something that looks like a key string."""
    return any(not _is_handle(found[0]) for found in _LOOKS_SECRET.finditer(text))


def redact(text: str) -> str:
    """Return *text* with everything that looks like a key string replaced; the last line of defence."""
    return _LOOKS_SECRET.sub(
        lambda found: found[0] if _is_handle(found[0]) else "sk-[redacted]", text
    )


def _sha256(text: str) -> str:
    import hashlib  # noqa: PLC0415  # loads OpenSSL, which help has no use for

    return hashlib.sha256(text.encode()).hexdigest()


def _is_handle(word: str) -> bool:
    # Messages put handles in quotes and before colons.
    return public_handle(word.rstrip("'\".,:;)]}")) is not None
