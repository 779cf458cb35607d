"""Check what options say: a word against the closed set it is of, a reason that it says something."""

from collections.abc import Sequence

from keyctl import nearest
from keyctl.errors import UsageError
from keyctl.names import is_blank


def require_one_of(word: str | None, known: Sequence[str], *, what: str) -> None:
    """Refuse *word* unless it is None or one of *known*.

    Raises:
        UsageError: It is not; the hint says what is.
    """
    if word is not None and word not in known:
        hint = nearest.meant(word, known, otherwise=f"give {', '.join(known)}")
        fault = f"{what} does not take" if what.startswith("--") else f"there is no {what}"
        raise UsageError(f"{fault} {word!r}", hint=hint)


def require_reason(reason: str | None) -> None:
    """Refuse a reason that nobody can read in the audit trail.

    Raises:
        UsageError: It consists of blanks.
    """
    if reason is not None and is_blank(reason):
        raise UsageError("--reason consists of blanks only", hint="say why, for the audit trail")
