"""Rates over all workers of LiteLLM's real proxy, where it shares a cache."""

import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fake_openai import fake_openai
from harness import Cli
from litellm_proxy import models_of, proxy

openai = pytest.importorskip("openai")
pytest.importorskip("litellm")

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("litellm"),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server"),
]


@pytest.fixture(name="redis_port")
def _redis_port(tmp_path: Path) -> Iterator[int]:
    """A Redis on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
    yield port
    server.terminate()
    server.wait(10)


def test_four_requests_a_minute_are_four_over_two_workers(tmp_path: Path, redis_port: int) -> None:
    """The proxy's own setting for a shared cache is all that it takes."""
    url = f"sqlite:///{tmp_path}/keyctl.db"
    cli = Cli(tmp_path / "you", url)
    key = cli.key("--rpm-limit", "4")
    shared = {
        "cache": True,
        "cache_params": {
            "type": "redis",
            "host": "127.0.0.1",
            "port": redis_port,
            "supported_call_types": [],
        },
    }
    got: Counter[str] = Counter()
    with (
        fake_openai() as provider,
        proxy(
            tmp_path / "proxy",
            url,
            workers=2,
            models=models_of(provider.url),
            settings=shared,
        ) as running,
    ):
        for _ in range(16):
            try:
                running.client(key).chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
                )
            except openai.RateLimitError:
                got["refused"] += 1
            else:
                got["served"] += 1

    assert got == {"served": 4, "refused": 12}
