"""Find the right word that somebody meant who typed a wrong one.  Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

_MOST: Final = 3
# What comes from a database may be of any number; the search is over so many at the most.
MOST_SEARCHED: Final = 10_000


def nearest(word: str, names: Iterable[str]) -> list[str]:
    """Return at most three of *names* that are like *word*, the likest first."""
    import difflib  # noqa: PLC0415  # only who made a mistake pays for it

    known = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower(), known, n=_MOST, cutoff=0.6)
    found += [
        name
        for name in known
        if len(word) > 2 and (word.lower() in name or name in word.lower()) and name not in found
    ]
    return [known[name] for name in found[:_MOST]]


def meant(word: str, names: Sequence[str], *, otherwise: str) -> str:
    """Return a hint: the nearest of *names*, or *otherwise* where none is near."""
    found = nearest(word, names)
    return f"did you mean {' or '.join(found)}? {otherwise}" if found else otherwise


def each_meant(words: Sequence[str], names: Sequence[str]) -> str:
    """Return *words* in one text, the first few with what is like them among *names* behind them."""
    told = list(words)
    for place, word in enumerate(words[:_MOST]):
        if found := nearest(word, names[:MOST_SEARCHED]):
            told[place] = f"{word} (did you mean {' or '.join(found)}?)"
    return ", ".join(told)
