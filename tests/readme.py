"""The README as tests read it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def marked(name: str) -> str:
    """Return what stands between the README's markers of this *name*."""
    found = re.search(rf"(?s)<!-- {name}:begin -->\n(.*?)\n?<!-- {name}:end -->", README)
    assert found is not None, f"the README has no {name}:begin and {name}:end"
    return found[1]


def fenced(name: str) -> str:
    """Return the fenced text between the README's markers of this *name*."""
    return "\n".join(marked(name).splitlines()[1:-1])
