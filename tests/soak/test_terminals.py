"""Every list and page on a real terminal, at each width, coloured and not, and in another locale."""

import os
import re
from datetime import timedelta

import pytest
from clock import Clock
from harness import Cli
from inside import Inside
from terminal import on_terminal, uncoloured

from keyctl.db import database

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

PAGES = (
    ("list",),
    ("list", "-o", "wide"),
    ("team", "list"),
    ("user", "list"),
    ("org", "list"),
    ("budget", "list"),
    ("audit", "list"),
    ("events", "list"),
    ("db", "check"),
    ("info", "checkout"),
    ("team", "info", "web"),
    ("user", "info", "ann"),
    ("org", "info", "acme"),
    ("status",),
)
LOOKS: dict[str, tuple[int, dict[str, str]]] = {
    "80": (80, {}),
    "120": (120, {}),
    "200": (200, {}),
    "80 without colour": (80, {"NO_COLOR": "1"}),
    "80 in ASCII": (80, {"LC_ALL": "C", "NO_COLOR": "1"}),
}
# All looks of all pages take minutes; without it each page has one look, and each look has pages.
ALL = bool(os.environ.get("KEYCTL_ALL_TERMINALS"))


# A terminal's program has the host's clock, and runs seconds before the other one: "59 s ago" would
# be "1 min ago" there, and a wider column cuts off others.  What is this old, or ends 30 days after
# it was made, is said in the same words for hours.
AGE = timedelta(days=2, hours=7)


def undimmed(text: str) -> str:
    """Return *text* without the dim of stderr's line, which is a terminal's only in one of the two."""
    return re.sub(r"\x1b\[2m(hidden: .*)\x1b\[0m", r"\1", text)


@pytest.fixture(name="world")
def _world(inside: Inside, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """An organization with a team, a person, a budget and keys, all made at one moment long ago."""
    clock.now = database.utcnow() - AGE
    monkeypatch.setattr(database, "utcnow", clock)
    for line in (
        "org create acme --max-budget 1000",
        "team create web --org acme --max-budget 100 --model gpt-4*",
        "user create ann",
        "team add-member web ann --role admin",
        "budget create small --max-budget 5 --budget-duration 1d",
        "generate --alias checkout --team web --user ann --max-budget 20 --duration 30d --tag shop",
        "generate --alias old",
        "spend checkout --add 17.25",
        "block old",
    ):
        inside(*line.split(), check=True)
    monkeypatch.undo()
    return inside


@pytest.mark.parametrize("look", LOOKS)
def test_every_list_and_page_is_what_its_file_shows(cli: Cli, world: Inside, look: str) -> None:
    """The screens in tests/cli/screens come from within the tests: a terminal gets the same."""
    columns, extra = LOOKS[look]
    pages = PAGES if ALL else PAGES[list(LOOKS).index(look) :: len(LOOKS)]
    for page in pages:
        shown = on_terminal(cli, *page, columns=columns, **extra)
        inner = world(*page, terminal=columns, environment=extra, check=True)

        assert undimmed(shown) == undimmed(inner.stdout + inner.stderr), (page, look)
        longest = max(len(uncoloured(line)) for line in shown.splitlines())
        assert longest <= columns or page[-1] != "list", (page, longest)
