"""Verify presented keys inside a gateway, and record what they are used for.

```python
with Verifier("postgresql://gateway@db/keyctl") as verifier:
    verdict = verifier.verify(presented, model="gpt-4o", route="/v1/chat/completions")
    if verdict.valid and verdict.reserve(Decimal("0.01")):  # what it may cost
        verdict.record(Decimal("0.0042"))  # what it cost
```

`AsyncVerifier` is the same for an event loop.
"""

from keyctl.errors import UnavailableError
from keyctl.gateway.found import Found
from keyctl.gateway.verdict import AsyncVerdict, Verdict
from keyctl.gateway.verifier import AsyncVerifier, Verifier

__all__ = ["AsyncVerdict", "AsyncVerifier", "Found", "UnavailableError", "Verdict", "Verifier"]
