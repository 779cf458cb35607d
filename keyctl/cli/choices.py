"""Check a word against the closed set it is of, and suggest the nearest one."""

from collections.abc import Sequence

from keyctl import nearest
from keyctl.errors import UsageError


def require_one_of(word: str | None, known: Sequence[str], *, what: str) -> None:
    """Refuse *word* unless it is None or one of *known*.

    Raises:
        UsageError: It is not; the hint says what is.
    """
    if word is not None and word not in known:
        hint = nearest.meant(word, known, otherwise=f"give {', '.join(known)}")
        raise UsageError(f"there is no {what} {word!r}", hint=hint)
