"""What keyctl costs LiteLLM's proxy: requests a second, beside a `custom_auth` that returns a constant.

Two real proxies run side by side on mock completions and are asked in turn.  To be run where LiteLLM is
installed (.ci/litellm makes such an environment).
"""

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from filler import another, filled, servers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from litellm_proxy import Proxy, proxy

REQUESTS, CLIENTS, ROUNDS = 300, 4, 15
CONSTANT = """
from litellm.proxy._types import UserAPIKeyAuth

async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key="key_constant", allowed_routes=["llm_api_routes"])
"""
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


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
    """Print the ratio for both kinds of database."""
    with TemporaryDirectory() as name, servers() as urls:
        for kind, url in urls.items():
            database, key = filled(another(url), 1000)
            own = database.address.url.render_as_string(hide_password=False)
            folder = Path(name) / kind
            (folder / "constant").mkdir(parents=True)
            (folder / "constant" / "constant_auth.py").write_text(CONSTANT)
            with (
                proxy(folder / "keyctl", own) as with_keyctl,
                proxy(
                    folder / "constant",
                    own,
                    custom_auth="constant_auth.user_api_key_auth",
                    callbacks=None,
                ) as constant,
            ):
                subjects = {"constant": constant, "keyctl": with_keyctl}
                taken: dict[str, list[float]] = {subject: [] for subject in subjects}
                for number in range(ROUNDS + 1):
                    for subject, running in subjects.items():
                        spent = seconds(running, key.reveal())
                        if number:  # the first round warms up
                            taken[subject].append(spent)
            rates = {name: REQUESTS / statistics.median(times) for name, times in taken.items()}
            print(
                f"{kind}: {rates['keyctl']:.0f} requests a second with keyctl, {rates['constant']:.0f} with a"
                f" constant: {rates['keyctl'] / rates['constant']:.2f}   target 0.95 or more"
            )
            database.engine.dispose()


if __name__ == "__main__":
    main()
