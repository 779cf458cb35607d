"""Two of LiteLLM's real proxies at one budget: no more is spent than there is, no less, and a kill loses nothing."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from databases import Postgres
from fake_openai import fake_openai
from gate import Gate
from litellm_proxy import Proxy, models_of, proxy
from proxy import Proxy as Listener
from servers import until
from sqlalchemy import make_url

from keyctl.db.database import Database

pytest.importorskip("litellm")

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("litellm")]

COST = 300_000_000  # of an answer: 30 tokens at a cent each, which is what it reserves, too
BUDGET = 500_000_000
THREADS = 24
LEASE = 3
WINDOWS = [{"budget_duration": "1d", "max_budget": 0.5}]
MODELS = {"gpt-4o": {"budget_limit": 0.5, "time_period": "1d"}}


class Pair:
    """Two proxies with one database, and a hand on it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._stack = ExitStack()
        self.provider = self._stack.enter_context(fake_openai())
        self.gate = Gate(url, folder)
        self._stack.callback(self.gate.close)
        # A connection for each request: a server closes one that was idle just when it is used again.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self.clients = self._stack.enter_context(httpx.Client(timeout=120, limits=limits))
        with ThreadPoolExecutor(2) as pool:
            self.proxies = list(pool.map(lambda name: self.start(folder / name), "ab"))

    def start(self, folder: Path, **environment: str) -> Proxy:
        """Start a proxy."""
        return self._stack.enter_context(
            proxy(
                folder,
                self.gate.url,
                models=models_of(self.provider.url),
                environment={"KEYCTL_GATEWAY_LEASE": str(LEASE), **environment},
            )
        )

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def ask(self, running: Proxy, key: str) -> int:
        """Ask for a completion and return the status; 0 when nobody answers any more."""
        try:
            answer = self.clients.post(
                f"{running.url}/v1/chat/completions",
                json={
                    "model": "gpt-4o",
                    "messages": [{"role": "user", "content": "hi"}],
                    "max_tokens": 22,
                },
                headers={"authorization": f"Bearer {key}"},
            )
        except httpx.TransportError:
            return 0
        return int(answer.status_code)

    def ask_at_once(self, keys: list[str]) -> Counter[int]:
        """Let each proxy be asked by so many threads, each proxy with a key of its own."""
        with ThreadPoolExecutor(2 * THREADS) as pool:
            asked = list(zip(cycle(self.proxies), cycle(keys), range(2 * THREADS), strict=False))
            return Counter(pool.map(lambda item: self.ask(item[0], item[1]), asked))

    def keys(self, owner: str, **request: Any) -> list[str]:
        """Make two keys of one owner, of whom nobody else has any."""
        self.of = uuid4().hex[:8]
        owners = self.gate.owners(self.of)
        table = {"member": "team_members", "team": "teams"}.get(owner)
        if table is None:
            return [self.gate.key(**owners, **request)] * 2
        where = "team_id" if owner == "member" else "id"
        self.gate.execute(
            f"UPDATE {table} SET max_budget = {BUDGET} WHERE {where} = 'web{self.of}'"
        )
        return [self.gate.key(**owners) for _ in range(2)]

    def spent(self) -> int:
        """Return what the keys of that owner have spent."""
        return int(
            self.gate.value(
                f"SELECT coalesce(sum(spend), 0) FROM keys WHERE team_id = 'web{self.of}'"
            )
        )

    def leased(self, what: str, where: str) -> int:
        """Return something about the leases of that owner's keys."""
        keys = f"SELECT id FROM keys WHERE team_id = 'web{self.of}'"
        return int(
            self.gate.value(
                f"SELECT coalesce({what}, 0) FROM leases WHERE object_id IN ({keys}) AND {where}"
            )
        )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"], name="pair")
def _pair(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two proxies on a database of each kind."""
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        if request.param == "postgresql":
            url = stack.enter_context(postgres.database())
        else:
            url = f"sqlite:///{folder}/keyctl.db"
            database = Database(url)
            database.upgrade()
            database.engine.dispose()
        pair = Pair(folder, url)
        stack.callback(pair.close)
        yield pair


@pytest.mark.parametrize(
    ("owner", "request_"),
    [
        ("key", {"max_budget": 0.5}),
        ("team", {}),
        ("member", {}),
        ("window", {"budget_limits": WINDOWS}),
        ("model", {"model_max_budget": MODELS}),
    ],
)
def test_two_workers_of_24_threads_serve_what_there_is(
    pair: Pair, owner: str, request_: dict[str, Any]
) -> None:
    """Of $0.50, at $0.30 a request: the second one takes what is left, the third nothing, and two are served."""
    keys = pair.keys(owner, **request_)

    got = pair.ask_at_once(keys)

    assert got == {200: 2, 429: 2 * THREADS - 2}
    until(lambda: pair.spent() >= 2 * COST)
    assert pair.spent() == 2 * COST


def test_a_killed_worker_holds_nothing_for_longer_than_its_lease(pair: Pair) -> None:
    """Killed by SIGKILL amid requests: all of the budget is spent in the end, and all that was served is charged."""
    (key, _) = pair.keys("key", max_budget=3)
    killed, left = pair.proxies
    served: Counter[Proxy] = Counter()
    provider = pair.provider
    amid = provider.waits = threading.Event()

    def ask(running: Proxy) -> None:
        while (status := pair.ask(running, key)) == 200:
            served[running] += 1
            if served[killed] >= 3:  # another thread may have counted past it
                killed.process.kill()
        assert status in (0, 429)

    with ThreadPoolExecutor(THREADS) as pool:
        # The provider has not answered these when the proxy is killed, whatever else it has settled.
        provider.asked.clear()
        unanswered = [pool.submit(pair.ask, killed, key) for _ in range(2)]
        until(lambda: len(provider.asked) == 2)
        provider.waits = None
        assert pair.leased("sum(held)", "unsettled_at IS NULL") == 2 * COST
        list(pool.map(ask, [killed, left] * (THREADS // 2 - 1)))
        killed.process.kill()  # the other one may have served too much for it to serve three
        assert killed.process.wait(20) == -signal.SIGKILL
        amid.set()
        assert [asked.result() for asked in unanswered] == [0, 0]

    def is_spent() -> bool:
        """Ask for what may be left, and tell whether that was all."""
        served[left] += pair.ask(left, key) == 200
        return pair.spent() >= 10 * COST

    until(is_spent, seconds=60)
    assert pair.spent() - COST <= 10 * COST
    assert served.total() * COST <= pair.spent()
    assert pair.leased("sum(charged)", "unsettled_at IS NOT NULL") >= 2 * COST


def test_far_from_the_limit_requests_cost_no_statement(
    pair: Pair, postgres: Postgres, tmp_path: Path
) -> None:
    """A hundred requests of a key with budgets of every kind, and nothing is sent to the server."""
    address = make_url(pair.gate.url)
    if address.get_backend_name() == "sqlite":
        pytest.skip("nobody can listen to what SQLite is asked")
    (key, _) = pair.keys(
        "key",
        max_budget=10**6,
        budget_limits=[{"budget_duration": "1d", "max_budget": 10**6}],
        model_max_budget={"gpt-4o": {"max_budget": 10**6}},
    )
    seldom = {"KEYCTL_GATEWAY_CACHE_TTL": "3600", "KEYCTL_GATEWAY_FLUSH_INTERVAL": "3600"}
    folder = make_url(postgres.url).query["host"]
    with Listener(f"{folder}/.s.PGSQL.{address.port or 5432}") as listener:
        url = address.set(host="127.0.0.1", port=listener.port).difference_update_query(["host"])
        running = pair.start(
            tmp_path,
            KEYCTL_DATABASE_URL=url.render_as_string(hide_password=False),
            **{**seldom, "KEYCTL_GATEWAY_LEASE": "7200"},
        )
        assert pair.ask(running, key) == 200
        before = listener.asked
        assert before > 0

        assert Counter(pair.ask(running, key) for _ in range(100)) == {200: 100}

        assert listener.asked == before
