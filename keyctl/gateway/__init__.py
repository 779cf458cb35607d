"""Verify presented keys inside a gateway, and record what they are used for.

```python
with Verifier("postgresql://gateway@db/keyctl") as verifier:
    verdict = verifier.verify(presented, model="gpt-4o", route="/v1/chat/completions")
    if verdict.valid:
        verdict.record(Decimal("0.0042"))
```

`AsyncVerifier` is the same for an event loop.
"""

from keyctl.errors import UnavailableError
from keyctl.gateway.verdict import Verdict
from keyctl.gateway.verifier import AsyncVerifier, Verifier

__all__ = ["AsyncVerifier", "UnavailableError", "Verdict", "Verifier"]
