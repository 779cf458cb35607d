"""Match the patterns that people write, in time linear in the text.

By RE2, which has no backtracking: no pattern that it accepts can be made to run for ever, and what
it cannot match so (look-ahead, back references) it refuses when the pattern is written.
"""

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    # Only who has a pattern pays for it.
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def problem(pattern: str) -> str | None:
    """Return why *pattern* cannot be used, None if it can."""
    import re2  # noqa: PLC0415

    try:
        _compiled(pattern)
    except re2.error as error:
        (said,) = error.args
        return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return None


def matches(pattern: str, text: str) -> bool:
    """Tell whether *text* as a whole matches *pattern*, which `problem` has found none with."""
    return _compiled(pattern).fullmatch(text) is not None
