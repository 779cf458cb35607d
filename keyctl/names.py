"""Tell which texts can be names: of keys, teams, users, models, tags and whatever else is listed."""

from typing import Final

MOST: Final = 255
# The space, and letters of Unicode that print as nothing: two fillers of Hangul in three forms, the
# braille cell without dots, the joiner of graphemes, and the selectors of a variant.
_UNSEEN: Final = " \u034f\u115f\u1160\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))


def is_printable(text: str) -> bool:
    """Tell whether *text* is 1 to 255 characters that can be printed: no line break, no control."""
    return 1 <= len(text) <= MOST and text.isprintable()


def is_blank(text: str) -> bool:
    """Tell whether nothing of *text* can be seen, so that nobody could tell it from an empty cell."""
    return not text.strip(_UNSEEN)


def is_name(text: str) -> bool:
    """Tell whether *text* can be a name."""
    return is_printable(text) and not is_blank(text)
