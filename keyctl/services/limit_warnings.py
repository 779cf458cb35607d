"""Say what a person should know about limits that break no rule: nobody enforces them, or they are spent."""

from collections.abc import Collection
from typing import Final

from keyctl import limits, money
from keyctl.records import Key

_SAID: Final = {
    "guardrails": "without a licence make LiteLLM refuse every request of the key",
}


def warnings_about_limits(key: Key, named: Collection[str] | None = None) -> list[str]:
    """Return what a person should know about the limits of *key*, or about those *named* only."""
    found = [
        f"{field} {_SAID.get(field, 'is kept and shown, and nobody enforces it')}"
        for field in limits.unenforced()
        if getattr(key, field, None) or key.gateway.get(field)
    ]
    if key.max_budget is not None and key.spend >= key.max_budget:
        spent = money.dollars(key.spend)
        found.append(f"max_budget is spent already: ${spent} of ${money.dollars(key.max_budget)}")
    return [line for line in found if named is None or line.partition(" ")[0] in named]
