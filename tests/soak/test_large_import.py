"""keyctl import litellm of ten thousand keys at once."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from clock import Clock
from litellm_tables import LiteLLM, digest, key
from migrating import RunImport, results

from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

MANY = 10_000


@pytest.mark.timeout(600)
def test_ten_thousand_keys(
    workspace: Workspace, litellm: LiteLLM, run: RunImport, clock: Clock
) -> None:
    """Every one of them verifies with its old string, those in their grace period too."""
    until = (clock.now + timedelta(days=1)).replace(tzinfo=None)
    texts = [f"sk-{n:06}{os.urandom(8).hex()}" for n in range(MANY)]
    older = [f"sk-{n:06}{os.urandom(8).hex()}" for n in range(MANY // 10)]
    litellm.add("users", *({"user_id": f"u{n}"} for n in range(20)))
    members = [{"user_id": f"u{n}", "role": "user"} for n in range(20)]
    litellm.add("teams", *({"team_id": f"t{n}", "members_with_roles": members} for n in range(5)))
    litellm.keys(
        key(text, key_alias=f"k{n}", team_id=f"t{n % 5}", user_id=f"u{n % 20}", max_budget=1.5)
        for n, text in enumerate(texts)
    )
    litellm.add(
        "grace",
        *(
            {"id": str(n), "token": digest(old), "active_token_id": digest(new), "revoke_at": until}
            for n, (old, new) in enumerate(zip(older, texts, strict=False))
        ),
    )

    lines = run()

    assert results(lines)["key", "imported"] == MANY
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda text: verify(workspace.database, text), texts + older))
    assert {verdict.reason for verdict in verdicts} == {None}
    assert [verdict.key_alias for verdict in verdicts[:MANY]] == [f"k{n}" for n in range(MANY)]
    assert Counter(verdict.secret_state for verdict in verdicts) == {
        "active": MANY,
        "retiring": MANY // 10,
    }
