"""A provider on loopback, LiteLLM's real proxy before it, and keyctl on the proxy's database."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fake_openai import OpenAI, fake_openai
from harness import Cli
from litellm_proxy import Proxy, models_of, proxy

EVERYTHING = ("--allowed-route", "llm_api_routes")
COST = 0.3  # of an answer: 30 tokens at a cent each
WRITTEN_WITHIN = 30


class Stand:
    """A provider, a proxy that may be started anew, and keyctl on their database."""

    def __init__(
        self,
        folder: Path,
        *,
        of_provider: Callable[[str], dict[str, Any]] = lambda _: {},
        **options: Any,
    ) -> None:
        self._folder = folder
        self._of_provider = of_provider
        self._options = options
        self._url = f"sqlite:///{folder}/keyctl.db"
        self._stack = ExitStack()
        self.cli = Cli(folder / "you", self._url)
        self.cli("db", "upgrade", check=True)
        self.provider: OpenAI = self._stack.enter_context(fake_openai())
        self._running = ExitStack()
        self.running = self.start()

    def start(self) -> Proxy:
        """Start the proxy."""
        url = self.provider.url
        self.running = self._running.enter_context(
            proxy(
                self._folder / "proxy",
                self._url,
                models=models_of(url),
                **{"environment": _environment(url), **self._options},
                **self._of_provider(url),
            )
        )
        return self.running

    def restart(self) -> None:
        """End the proxy and start another."""
        self._running.close()
        self.start()

    def close(self) -> None:
        """End everything."""
        self._running.close()
        self._stack.close()

    def key(self, *options: str) -> tuple[str, str]:
        """Make a key that reaches everything, and return its alias and its string."""
        alias = f"k-{uuid4().hex[:8]}"
        return alias, self.cli.key("--alias", alias, *EVERYTHING, *options)

    def spend(self, alias: str) -> float:
        """Return what the key has spent."""
        return float(self.cli("info", alias, "-o", "json", check=True).json["spend"])

    def spends(self, alias: str, wanted: float) -> float:
        """Return what the key has spent, once it is the wanted sum or nothing more comes."""
        return self._spend_once(alias, lambda got: got == wanted)

    def spends_something(self, alias: str) -> float:
        """Return what the key has spent, once that is more than nothing."""
        return self._spend_once(alias, lambda got: got > 0)

    def left(self, key: str) -> list[dict[str, Any]]:
        """Return what is left of each budget of the key, as the proxy tells its owner."""
        client = self.running.client(key)
        info: Any = client.get(f"{self.running.url}/key/info", cast_to=object)
        left: list[dict[str, Any]] = info["info"]["left"]
        return left

    def _spend_once(self, alias: str, is_wanted: Callable[[float], bool]) -> float:
        end = time.monotonic() + WRITTEN_WITHIN
        while not is_wanted(got := self.spend(alias)) and time.monotonic() < end:
            time.sleep(0.2)
        return got


def _environment(provider: str) -> dict[str, str]:
    return {
        # Ids of answers are encrypted with it: whoever runs the proxy keeps it.
        "LITELLM_SALT_KEY": "sk-salt",
        # What LiteLLM's pass-through needs, and any proxy with the manual's configuration has.
        "OPENAI_API_KEY": "none",
        "OPENAI_API_BASE": provider,
    }


def refused(ask: Callable[[], Any]) -> int:
    """Return the status that a request is refused with."""
    import openai

    with pytest.raises(openai.APIStatusError) as caught:
        ask()
    return int(caught.value.status_code)
