"""Every list and page on a real terminal, at each width, coloured and not, and in another locale."""

import os
import re

import pytest
from harness import Cli
from inside import Inside
from terminal import on_terminal, uncoloured

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


def still(text: str) -> str:
    """Return *text* without what goes on while one program ends and another one begins.

    And without the dim of stderr's line, which is a terminal's only in one of the two.
    """
    text = re.sub(r"\x1b\[2m(hidden: .*)\x1b\[0m", r"\1", text)
    return re.sub(r" +", " ", re.sub(r"\b\d+ s ago", "N s ago", text))


@pytest.mark.parametrize("look", LOOKS)
def test_every_list_and_page_is_what_its_file_shows(cli: Cli, inside: Inside, look: str) -> None:
    """The screens in tests/cli/screens come from within the tests: a terminal gets the same."""
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
    columns, extra = LOOKS[look]
    pages = PAGES if ALL else PAGES[list(LOOKS).index(look) :: len(LOOKS)]
    for page in pages:
        shown = on_terminal(cli, *page, columns=columns, **extra)
        inner = inside(*page, terminal=columns, environment=extra, check=True)

        assert still(shown) == still(inner.stdout + inner.stderr), (page, look)
        longest = max(len(uncoloured(line)) for line in shown.splitlines())
        assert longest <= columns or page[-1] == "wide" or page[0] != "list", (page, longest)
