"""Show one thing as a page: labels and values, in a pipe a line for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keyctl import durations
from keyctl.cli import screen
from keyctl.cli.console import Console, one_line


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a page; without a label it goes on with the one above."""

    label: str
    text: str
    colour: str = ""


def show_facts(console: Console, facts: Sequence[Fact]) -> None:
    """Write *facts* under each other."""
    width = max((len(fact.label) for fact in facts), default=0)
    lines = []
    for fact in facts:
        text = one_line(fact.text)
        if not console.is_terminal:
            lines.append(f"{fact.label}: {text}" if fact.label else f"  {text}")
            continue
        label = fact.label.ljust(width)
        if console.colour:
            label = screen.paint(label, "dim")
            text = screen.paint(text, fact.colour) if fact.colour else text
        lines.append(f"{label}  {text}")
    console.say("".join(f"{line.rstrip()}\n" for line in lines))


def show_heading(console: Console, text: str) -> None:
    """Begin another part of the page."""
    console.say(f"\n{screen.paint(text, 'bold') if console.colour else text}\n")


def left(item: dict[str, Any]) -> str:
    """Return what is left of a budget, whose it is, and until when."""
    if item["unit"] == "tokens":
        amount = f"{item['left']} of {item['limit']} tokens"
    else:
        amount = f"{screen.money(item['left'])} of {screen.money(item['limit'])}"
    what = "" if item["what"] == "max_budget" else f", {item['what']}"
    return f"{amount}{durations.per(item['period'])} ({owner(item)}{what})"


def owner(item: dict[str, Any]) -> str:
    """Return whose a limit is, on the page of a key."""
    return "its own" if item["of"] == "key" else f"of {item['of']} {item['id']}"
