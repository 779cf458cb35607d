"""What keyctl costs LiteLLM's proxy: requests a second, beside a `custom_auth` that returns a constant.

Two real proxies run side by side on mock completions and are asked in turn.  To be run where LiteLLM is
installed (.ci/litellm makes such an environment).

Targets: 0.95 far from the limit, 0.8 near it.  Measured on two quiet cores, with seven rounds, where the
proxy and its clients share them: 0.71 and 0.67 on SQLite, 0.91 and 0.73 on PostgreSQL.
"""

import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from filler import another, filled, servers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from gate import Gate
from litellm_proxy import Proxy, proxy

# Short rounds, and many: a slow second of the machine is then a round that no median knows.
REQUESTS, CLIENTS, ROUNDS = 100, 4, int(os.environ.get("ROUNDS", "45"))
RESET_EVERY, WARMING = 3, 3
# Dollars of which the database decides with each request: fewer than a thousand requests are left.
NEAR = 250
CONSTANT = """
from litellm.proxy._types import UserAPIKeyAuth

async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key="key_constant", allowed_routes=["llm_api_routes"])
"""
# The same owners as keyctl's token, and a callback: what LiteLLM itself does for those, it does here too.
NAMED = """
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth

async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(
        api_key="key_constant", token="key_constant", user_id="ada", team_id="web", org_id="acme",
        allowed_routes=["llm_api_routes"],
    )

class Idle(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        pass

logger = Idle()
"""
# As a gateway runs that sets neither; the tests' proxies read and write five times as often.
DEFAULTS = {"KEYCTL_GATEWAY_CACHE_TTL": "5", "KEYCTL_GATEWAY_FLUSH_INTERVAL": "1"}
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}


def seconds(running: Proxy, key: str) -> float:
    """Return what so many requests of so many clients take."""

    def ask(_: int) -> None:
        with httpx.Client(timeout=60) as client:
            for _ in range(REQUESTS // CLIENTS):
                answer = client.post(
                    f"{running.url}/v1/chat/completions",
                    json=BODY,
                    headers={"authorization": f"Bearer {key}"},
                )
                answer.raise_for_status()

    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(CLIENTS)))
    return time.perf_counter() - begun


def main() -> None:
    """Print the ratios for both kinds of database."""
    with TemporaryDirectory() as name, servers() as urls:
        for kind, url in urls.items():
            database, _ = filled(another(url), 1000)
            own = database.address.url.render_as_string(hide_password=False)
            folder = Path(name) / kind
            (folder / "constant").mkdir(parents=True)
            (folder / "constant" / "constant_auth.py").write_text(CONSTANT)
            (folder / "named").mkdir()
            (folder / "named" / "named_auth.py").write_text(NAMED)
            gate = Gate(own, folder)
            far = gate.key(max_budget=10**6, key_alias="far", **gate.owners())
            near = gate.key(max_budget=NEAR, key_alias="near")
            with (
                proxy(folder / "keyctl", own, environment=DEFAULTS) as with_keyctl,
                proxy(
                    folder / "constant",
                    own,
                    custom_auth="constant_auth.user_api_key_auth",
                    callbacks=None,
                ) as constant,
                proxy(
                    folder / "named",
                    own,
                    custom_auth="named_auth.user_api_key_auth",
                    callbacks="named_auth.logger",
                ) as named,
            ):
                subjects = {
                    "constant": (constant, far),
                    "named": (named, far),
                    "far": (with_keyctl, far),
                    "near": (with_keyctl, near),
                }
                taken: dict[str, list[float]] = {subject: [] for subject in subjects}
                for number in range(-WARMING, ROUNDS):
                    if number % RESET_EVERY == 0:
                        gate.execute("UPDATE keys SET spend = 0 WHERE key_alias = 'near'")
                        time.sleep(6)  # until the proxy has read that
                    # Each in turn is the first, which finds the machine rested.
                    turn = number % len(subjects)
                    for subject, (running, key) in (
                        *islice(subjects.items(), turn, None),
                        *islice(subjects.items(), turn),
                    ):
                        spent = seconds(running, key)
                        if number >= 0:
                            taken[subject].append(spent)
            rates = {name: REQUESTS / statistics.median(times) for name, times in taken.items()}
            for subject, target in (("far", 0.95), ("near", 0.8)):
                print(
                    f"{kind}, {subject} {'from' if subject == 'far' else 'to'} the limit: {rates[subject]:.0f} requests a second,"
                    f" {rates['constant']:.0f} with a constant:"
                    f" {rates[subject] / rates['constant']:.2f}   target {target} or more;"
                    f" {rates[subject] / rates['named']:.2f} of one with the same owners and a callback"
                )
            gate.close()
            database.engine.dispose()


if __name__ == "__main__":
    main()
