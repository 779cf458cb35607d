"""Read the manual as tests do: the README and every page of docs/."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
MANUAL = "\n".join(PAGES.values())


def marked(name: str) -> str:
    """Return what stands between the markers of this *name*, on whichever page has them."""
    found = re.findall(rf"(?s)<!-- {name}:begin -->\n(.*?)\n?<!-- {name}:end -->", MANUAL)
    assert len(found) == 1, f"the manual has {len(found)} times {name}:begin and {name}:end"
    return str(found[0])


def fenced(name: str) -> str:
    """Return the fenced text between the markers of this *name*."""
    return "\n".join(marked(name).splitlines()[1:-1])
