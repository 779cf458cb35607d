"""LiteLLM's real proxy with keyctl's adapter, on loopback, answering from `mock_response`."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manual import fenced

STARTED_WITHIN = 180  # two of them start side by side in CI
ADAPTER = "keyctl.gateway.litellm.user_api_key_auth"
# Models that answer without a network: so many tokens come in and go out, at a cent each.
MODELS = [
    {
        "model_name": name,
        "litellm_params": {"model": f"openai/{name}", "api_key": "none", "mock_response": answer},
        "model_info": {"input_cost_per_token": 0.01, "output_cost_per_token": 0.01},
    }
    for name, answer in (("gpt-4o", "Hello"), ("claude", "Bonjour"))
]


def models_of(provider: str) -> list[dict[str, Any]]:
    """Return models that the provider at this URL answers: one at a cent a token, free ones, one without a price."""
    prices: dict[str, dict[str, float]] = {
        "gpt-4o": {"input_cost_per_token": 0.01, "output_cost_per_token": 0.01},
        "free": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
        "unpriced": {},
        "broken": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
    }
    return [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_key": "none", "api_base": provider},
            "model_info": price,
        }
        for name, price in prices.items()
    ]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy: where it listens, and what it writes to its log."""

    url: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def client(self, key: str) -> Any:
        """Return OpenAI's client with this key; it tries nothing twice."""
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30)


@contextmanager
def proxy(
    folder: Path,
    database_url: str,
    *,
    workers: int = 1,
    custom_auth: str = ADAPTER,
    callbacks: str | None = "keyctl.gateway.litellm.logger",
    environment: Mapping[str, str] | None = None,
    models: Sequence[Mapping[str, Any]] = MODELS,
    settings: Mapping[str, Any] | None = None,
    general: Mapping[str, Any] | None = None,
    servers: Mapping[str, Any] | None = None,
) -> Iterator[Proxy]:
    """Run a proxy in a process group of its own until the block ends.

    *settings* are more `litellm_settings`, *general* more `general_settings`, *servers* those of MCP.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "proxy.yaml", folder / "proxy.log"
    document = {**configuration(custom_auth, callbacks), "model_list": list(models)}
    document["litellm_settings"] |= settings or {}
    document["general_settings"] |= general or {}
    document["mcp_servers"] = dict(servers or {})
    config.write_text(json.dumps(document))  # which is YAML too
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("litellm")
    arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *arguments, "--telemetry", "False", "--num_workers", str(workers)],
            env={
                "HOME": str(folder),
                "PATH": os.environ["PATH"],
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(16)}",
                "KEYCTL_DATABASE_URL": database_url,
                "KEYCTL_GATEWAY_CACHE_TTL": "1",
                "KEYCTL_GATEWAY_FLUSH_INTERVAL": "0.2",
                **(environment or {}),
            },
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        running = Proxy(f"http://127.0.0.1:{port}", log, process)
        _await_start(running)
        yield running
    finally:
        with suppress(ProcessLookupError):  # a test may have ended it
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def configuration(custom_auth: str, callbacks: str | None) -> dict[str, Any]:
    """Return the configuration that the manual shows, with models of our own."""
    import yaml

    shown: dict[str, Any] = yaml.safe_load(fenced("proxy"))
    shown["general_settings"]["custom_auth"] = custom_auth
    shown["litellm_settings"]["callbacks"] = [] if callbacks is None else [callbacks]
    return shown


def _await_start(running: Proxy) -> None:
    end, alive = time.monotonic() + STARTED_WITHIN, f"{running.url}/health/liveliness"
    while time.monotonic() < end:
        if running.process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(alive, timeout=5):  # noqa: S310  # it is our own
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the proxy did not start:\n{running.log.read_text()[-3000:]}")
