"""Store and check a key string as bcrypt over SHA-256.  Pure."""

import binascii
import re

import bcrypt

from keyctl.keystring import KeyString

MIN_COST = 4
MAX_COST = 16
DEFAULT_COST = 10

_SHAPE = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")


def hash_key(key: KeyString, *, cost: int) -> str:
    """Return ``bcrypt(sha256_hex(key string))`` with 2**cost rounds.

    The digest is always 64 bytes, so bcrypt's limit of 72 and NUL bytes cannot matter, and
    one rule serves generated, supplied and imported keys: a gateway that stored SHA-256
    (LiteLLM) can be imported without knowing its keys.
    """
    return hash_digest(key.digest(), cost=cost)


def hash_digest(digest: str, *, cost: int) -> str:
    """Return the bcrypt hash of a SHA-256 *digest* in hex (64 characters)."""
    if len(digest) != 64:
        raise ValueError("a SHA-256 digest in hex has 64 characters")
    return bcrypt.hashpw(digest.encode("ascii"), bcrypt.gensalt(cost)).decode("ascii")


def is_hash(text: str) -> bool:
    """Tell whether *text* has the form of a bcrypt hash; any other matches no key string."""
    return _SHAPE.fullmatch(text) is not None


def matches(key: KeyString, *, hashed: str) -> bool:
    """Tell whether *hashed* was made from *key*; a malformed hash matches nothing."""
    return digest_matches(key.digest(), hashed=hashed)


def digest_matches(digest: str, *, hashed: str) -> bool:
    """Tell whether *hashed* was made from the key string with this SHA-256 *digest* in hex."""
    try:
        return bcrypt.checkpw(digest.encode("ascii"), hashed.encode("ascii"))
    except (ValueError, UnicodeError, binascii.Error):
        return False
