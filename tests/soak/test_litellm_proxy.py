"""A client, LiteLLM's real proxy and keyctl's keys: what works, what is refused, and what goes on working.

Runs where LiteLLM is installed; .ci/run installs it in an environment of its own.
"""

import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import servers
from databases import administered, at
from harness import Cli
from litellm_proxy import Proxy, proxy
from pg_server import Server

from keyctl.db.database import Database

openai = pytest.importorskip("openai")
pytest.importorskip("litellm")

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("litellm")]

COST = 0.3  # of a mock completion: 30 tokens at a cent each
SEEN_WITHIN = 10  # seconds: the adapter's cache lives one, a busy machine needs the rest


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[Server]:
    """A PostgreSQL server of the module's own, which a test may stop."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture(scope="module", name="url")
def _url(server: Server) -> str:
    """A migrated database that all workers of the proxy share."""
    name = f"keyctl_{uuid4().hex[:12]}"
    with administered(server.url) as execute:
        execute(f'CREATE DATABASE "{name}"')
    database = Database(at(server.url, name))
    database.upgrade()
    database.engine.dispose()
    return at(server.url, name)


@pytest.fixture(scope="module", name="cli")
def _cli(url: str, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """keyctl on that database."""
    return Cli(tmp_path_factory.mktemp("you"), url)


@pytest.fixture(scope="module", name="running")
def _running(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The proxy with two workers."""
    with proxy(tmp_path_factory.mktemp("proxy"), url, workers=2) as started:
        yield started


@pytest.fixture(scope="module", name="alone")
def _alone(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The proxy with one worker, whose rate limits are counted in one place."""
    with proxy(tmp_path_factory.mktemp("alone"), url) as started:
        yield started


def complete(client: Any, model: str = "gpt-4o") -> str:
    """Ask for a completion and return what came, or the kind of error."""
    try:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}]
        )
    except openai.OpenAIError as error:
        return type(error).__name__
    return str(answer.choices[0].message.content)


def error_of(client: Any, model: str = "gpt-4o") -> tuple[int, str]:
    """Ask for a completion that is refused; return the status and the type in the body."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return caught.value.status_code, caught.value.body["type"]


def until(answer: Callable[[], str], wanted: str) -> str:
    """Ask again until the answer is the wanted one, for as long as a cache may live."""
    end = time.monotonic() + SEEN_WITHIN
    while (got := answer()) != wanted and time.monotonic() < end:
        pass
    return got


class TestKeysThatWork:
    def test_a_generated_key_gets_a_completion_and_a_stream(self, cli: Cli, running: Proxy) -> None:
        """OpenAI's own client is served, whole and piece by piece."""
        client = running.client(cli.key())

        stream = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], stream=True
        )

        assert complete(client) == "Hello"
        assert "".join(part.choices[0].delta.content or "" for part in stream) == "Hello"

    def test_what_it_costs_is_charged_to_the_key_and_its_owners(
        self, cli: Cli, running: Proxy
    ) -> None:
        """Key, team, user and organization have spent the same, and the key was used."""
        owner = uuid4().hex[:8]
        cli("org", "create", owner, check=True)
        cli("team", "create", owner, "--org", owner, check=True)
        cli("user", "create", owner, check=True)
        cli("team", "add-member", owner, owner, check=True)
        client = running.client(cli.key("--team", owner, "--user", owner, "--alias", owner))

        assert [complete(client) for _ in range(3)] == ["Hello"] * 3

        def spent() -> str:
            shown = [
                cli(*command, owner, "-o", "json", check=True).json["spend"]
                for command in (["info"], ["team", "info"], ["user", "info"], ["org", "info"])
            ]
            return str(shown)

        assert until(spent, str([0.9] * 4)) == str([0.9] * 4)
        assert cli("info", owner, "-o", "json").json["last_used_at"] is not None

    def test_a_key_shows_its_own_models_only(self, cli: Cli, running: Proxy) -> None:
        """GET /v1/models lists what the key may use."""
        client = running.client(cli.key("--model", "claude"))

        assert [model.id for model in client.models.list()] == ["claude"]


class TestKeysThatDoNot:
    def test_a_wrong_key_is_an_authentication_error(self, cli: Cli, running: Proxy) -> None:
        """A key that nobody made, one with a typo, and none."""
        key = cli.key()
        typo = key[:-1] + ("a" if key[-1] != "a" else "b")

        assert error_of(running.client("sk-nobody-made-this-one")) == (401, "token_not_found_in_db")
        assert error_of(running.client(typo)) == (401, "token_not_found_in_db")
        assert complete(running.client("none")) == "AuthenticationError"

    @pytest.mark.parametrize(
        ("command", "kind"),
        [("block", "auth_error"), ("delete", "auth_error"), ("expire", "expired_key")],
    )
    def test_a_key_that_ends_is_refused_while_it_is_used(
        self, cli: Cli, running: Proxy, command: str, kind: str
    ) -> None:
        """Blocked, deleted and expired keys are refused by both workers within the cache's life."""
        alias = f"{command}-{uuid4().hex[:8]}"
        client = running.client(cli.key("--alias", alias))
        assert {complete(client) for _ in range(6)} == {"Hello"}

        if command == "expire":
            cli("update", alias, "--duration", "1s", check=True)
        else:
            cli(command, alias, check=True)

        assert until(lambda: complete(client), "AuthenticationError") == "AuthenticationError"
        time.sleep(1.2)  # the other worker's cache
        assert [error_of(client) for _ in range(6)] == [(401, kind)] * 6

    def test_a_blocked_team_takes_its_keys_along(self, cli: Cli, running: Proxy) -> None:
        """The proxy does not look at that by itself."""
        team = f"team-{uuid4().hex[:8]}"
        cli("team", "create", team, check=True)
        client = running.client(cli.key("--team", team))
        assert complete(client) == "Hello"

        cli("team", "update", team, "--blocked", check=True)

        assert until(lambda: complete(client), "AuthenticationError") == "AuthenticationError"

    def test_a_model_outside_the_key_s_list_is_403(self, cli: Cli, running: Proxy) -> None:
        """So is one outside its team's, for a key without a list; the key's own go on working."""
        team = f"team-{uuid4().hex[:8]}"
        cli("team", "create", team, "--model", "claude", check=True)
        own = running.client(cli.key("--model", "gpt-4o"))
        inherited = running.client(cli.key("--team", team))

        assert error_of(own, "claude") == (403, "key_model_access_denied")
        assert error_of(inherited, "gpt-4o") == (403, "key_model_access_denied")
        assert (complete(own), complete(inherited, "claude")) == ("Hello", "Bonjour")

    def test_a_misspelt_model_is_told_with_the_nearest(self, cli: Cli, running: Proxy) -> None:
        """Of those that the key may use."""
        client = running.client(cli.key("--model", "gpt-4o"))

        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.chat.completions.create(
                model="gpt-4oo", messages=[{"role": "user", "content": "hi"}]
            )

        assert "Tried to access gpt-4oo; did you mean gpt-4o?" in str(caught.value)

    def test_a_fallback_that_a_client_names_is_a_model_like_any_other(
        self, cli: Cli, running: Proxy
    ) -> None:
        """It is held against every owner's list, also where the key's own is empty."""
        owner = f"fallback-{uuid4().hex[:8]}"
        cli("org", "create", owner, "--model", "gpt-4o", check=True)
        cli("team", "create", owner, "--org", owner, check=True)
        client = running.client(cli.key("--team", owner))
        assert complete(client) == "Hello"

        for fallbacks in (["claude"], [{"model": "claude"}], [{"gpt-4o": ["claude"]}]):
            with pytest.raises(openai.PermissionDeniedError):
                client.chat.completions.create(
                    model="gpt-4o",
                    messages=[{"role": "user", "content": "hi"}],
                    extra_body={"fallbacks": fallbacks},
                )

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/chat/completions?model=claude",
            "/engines/claude/chat/completions",
            "/openai/deployments/claude/chat/completions",
            "/openai/deployments/claude/embeddings",
            "/v1beta/models/claude:generateContent",
        ],
    )
    def test_a_model_in_the_path_or_query_is_held_against_the_lists(
        self, cli: Cli, running: Proxy, path: str
    ) -> None:
        """LiteLLM carries that one out, whichever the body names; and `all-team-models` lifts nothing."""
        team = f"placed-{uuid4().hex[:8]}"
        cli("team", "create", team, "--model", "gpt-4o", check=True)
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}

        for more in ((), ("--model", "all-team-models")):
            client = running.client(cli.key("--team", team, *more))
            with pytest.raises(openai.PermissionDeniedError):
                client.post(f"{running.url}{path}", body=body, cast_to=object)

    @pytest.mark.parametrize(
        ("path", "model"),
        [
            ("/v1/chat/completions", "gpt-4o,gpt-4o"),
            ("/v1/chat/completions?model=gpt-4o,gpt-4o", "gpt-4o"),
            ("/engines/gpt-4o,gpt-4o/chat/completions", "gpt-4o"),
            ("/openai/deployments/gpt-4o,gpt-4o/chat/completions", "gpt-4o"),
        ],
    )
    def test_a_list_of_models_is_refused(
        self, cli: Cli, running: Proxy, path: str, model: str
    ) -> None:
        """Wherever it stands: five completions would be charged as one."""
        client = running.client(cli.key())
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        with pytest.raises(openai.BadRequestError):
            client.post(f"{running.url}{path}", body=body, cast_to=object)

    def test_a_user_who_has_no_models_of_their_own_uses_the_team_s(
        self, cli: Cli, running: Proxy
    ) -> None:
        """`no-default-models` sends them to their team, which allows every model here."""
        name = f"nd-{uuid4().hex[:8]}"
        cli("team", "create", name, check=True)
        cli("user", "create", name, "--model", "no-default-models", check=True)
        cli("team", "add-member", name, name, check=True)
        assert complete(running.client(cli.key("--team", name, "--user", name))) == "Hello"

    def test_a_request_that_is_not_to_be_logged_is_charged(self, cli: Cli, running: Proxy) -> None:
        """`no-log` keeps it from other loggers, not from the budget."""
        alias = f"quiet-{uuid4().hex[:8]}"
        client = running.client(cli.key("--alias", alias))
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"no-log": True},
        )
        assert until(lambda: str(spend(cli, alias)), str(COST)) == str(COST)

    def test_no_key_is_a_key_that_is_not_valid(self, running: Proxy) -> None:
        """It is 401 in LiteLLM's shape, and says so."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{running.url}/v1/models", timeout=30)  # noqa: S310  # it is our own
        assert caught.value.code == 401
        assert b"it is no key" in caught.value.read()

    def test_a_key_reaches_no_settings(self, cli: Cli, running: Proxy) -> None:
        """A key that does not say what it is for is for models only."""
        client = running.client(cli.key())

        for path in ("/config/yaml", "/key/list", "/team/list", "/global/spend"):
            with pytest.raises(openai.APIStatusError) as caught:
                client.get(f"{running.url}{path}", cast_to=object)
            assert caught.value.status_code in (401, 403), path

    def test_requests_a_minute_are_429_and_shared_by_both_secrets(
        self, cli: Cli, alone: Proxy
    ) -> None:
        """A rotation does not double the limit: the old and the new string count together."""
        alias = f"rpm-{uuid4().hex[:8]}"
        old = alone.client(cli.key("--alias", alias, "--rpm-limit", "3"))
        new = alone.client(cli("rotate", alias, check=True).stdout.strip())

        got = [complete(client) for client in (old, new, old, new, old)]

        assert got == ["Hello", "Hello", "Hello", "RateLimitError", "RateLimitError"]

    def test_a_team_s_requests_a_minute_bind_all_its_keys(self, cli: Cli, alone: Proxy) -> None:
        """Two keys of a team share its limit."""
        team = f"rpm-{uuid4().hex[:8]}"
        cli("team", "create", team, "--rpm-limit", "2", check=True)
        first, second = (alone.client(cli.key("--team", team)) for _ in range(2))

        got = [complete(client) for client in (first, second, first)]

        assert got == ["Hello", "Hello", "RateLimitError"]

    def test_a_spent_budget_is_429_until_its_period_is_over(self, cli: Cli, alone: Proxy) -> None:
        """Two completions fit; then it is refused, at once and for good, until `budget reset`."""
        alias = f"budget-{uuid4().hex[:8]}"
        client = alone.client(
            cli.key("--alias", alias, "--max-budget", "0.5", "--budget-duration", "1h")
        )
        assert [complete(client) for _ in range(2)] == ["Hello"] * 2
        assert until(lambda: complete(client), "RateLimitError") == "RateLimitError"
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=[])
        assert caught.value.body["type"] == "budget_exceeded"
        key_id = cli("info", alias, "-o", "json").json["key_id"]
        spent = f" Spent: max_budget of key {key_id}, $0.5 per 1h, starts again "
        assert spent in caught.value.body["message"]
        assert caught.value.response.headers["x-should-retry"] == "false"
        # Refused by what is reserved: the spend itself is written a moment later.
        servers.until(lambda: cli("info", alias, "-o", "json").json["spend"] >= 0.5)

        cli.execute(f"UPDATE keys SET budget_reset_at = NULL WHERE key_alias = '{alias}'")
        cli("budget", "reset", "--due", check=True)

        assert until(lambda: complete(client), "Hello") == "Hello"


class TestThroughEverything:
    def test_nobody_is_locked_out_by_a_rotation(self, cli: Cli, running: Proxy) -> None:
        """500 requests of clients that read their sink each time, through five rotations: none fails."""
        alias = f"rotated-{uuid4().hex[:8]}"
        sink = cli.home / f"{alias}.key"
        cli("generate", "--alias", alias, "--out-file", str(sink), check=True)
        served = threading.Semaphore(0)

        def ask(_: int) -> str:
            answer = complete(running.client(sink.read_text().strip()))
            served.release()
            return answer

        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(ask, number) for number in range(500)]
            for _ in range(5):
                for _ in range(80):
                    served.acquire(timeout=60)
                cli("rotate", alias, "--grace", "1h", "--out-file", str(sink), check=True)

        assert Counter(answer.result() for answer in answers) == {"Hello": 500}

    def test_old_and_new_secret_work_in_the_grace_period_and_the_old_one_not_after_it(
        self, cli: Cli, running: Proxy
    ) -> None:
        """The old string is refused when its time is over, cached or not."""
        alias = f"grace-{uuid4().hex[:8]}"
        old = running.client(cli.key("--alias", alias))
        assert complete(old) == "Hello"

        new = running.client(cli("rotate", alias, "--grace", "8s", check=True).stdout.strip())

        rotated = time.monotonic()
        assert (complete(old), complete(new)) == ("Hello", "Hello")
        while complete(old) == "Hello":
            assert time.monotonic() < rotated + 8 + SEEN_WITHIN
        assert time.monotonic() > rotated + 5
        assert error_of(old) == (401, "auth_error")
        assert complete(new) == "Hello"

    def test_a_revocation_under_load_is_seen_by_every_worker(
        self, cli: Cli, running: Proxy
    ) -> None:
        """Of eight clients that never stop, each is refused soon after, and none is served again."""
        alias = f"revoked-{uuid4().hex[:8]}"
        key = cli.key("--alias", alias)
        revoked = threading.Event()

        def ask(_: int) -> str:
            client = running.client(key)
            end = time.monotonic() + 60
            while (answer := complete(client)) == "Hello" and time.monotonic() < end:
                if revoked.is_set():
                    end = min(end, time.monotonic() + SEEN_WITHIN)
            return answer

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, number) for number in range(8)]
            cli("delete", alias, check=True)
            revoked.set()
        assert {answer.result() for answer in answers} == {"AuthenticationError"}
        time.sleep(1.2)
        assert {complete(running.client(key)) for _ in range(8)} == {"AuthenticationError"}

    def test_known_keys_go_on_working_while_the_database_is_down(
        self, cli: Cli, running: Proxy, server: Server
    ) -> None:
        """Stopped and started under load: no known key fails, unknown ones get 503, all is charged."""
        alias = f"outage-{uuid4().hex[:8]}"
        key, stranger = cli.key("--alias", alias), cli.key()
        client = running.client(key)
        with ThreadPoolExecutor(8) as pool:
            # Both workers know it then: a client asks one of them only, on the connection that it keeps.
            known = Counter(pool.map(lambda _: complete(running.client(key)), range(32)))
        assert known == {"Hello": 32}
        stop = threading.Event()

        def ask(_: int) -> Counter[str]:
            got: Counter[str] = Counter()
            while not stop.is_set():
                got[complete(client)] += 1
            return got

        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(ask, number) for number in range(4)]
            server.stop()
            outage = until(lambda: complete(running.client(stranger)), "InternalServerError")
            code, kind = error_of(running.client(stranger))
            time.sleep(3)
            server.start()
            back = until(lambda: complete(running.client(stranger)), "Hello")
            stop.set()
        got = sum((answer.result() for answer in answers), Counter())

        assert (outage, code, kind, back) == (
            "InternalServerError",
            503,
            "no_db_connection",
            "Hello",
        )
        assert set(got) == {"Hello"}
        cost = round((got["Hello"] + 32) * COST, 9)
        assert until(lambda: str(spend(cli, alias)), str(cost)) == str(cost)

    def test_a_wrong_clock_changes_no_verdict(self, cli: Cli, url: str, tmp_path: Path) -> None:
        """On a host whose clock is a day ahead, a key with an hour to live works: the database's clock counts."""
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            pytest.skip("libfaketime is not installed")
        key = cli.key("--duration", "1h")
        short = cli.key("--duration", "1s")
        ahead = {
            "LD_PRELOAD": str(library),
            "FAKETIME": "+1d",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

        with proxy(tmp_path, url, environment=ahead) as late:
            assert complete(late.client(key)) == "Hello"
            assert error_of(late.client(short)) == (401, "expired_key")


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_embedded_database_will_do(database_url: str, tmp_path: Path, workers: int) -> None:
    """On SQLite the same adapter serves and refuses, and a proxy that is stopped writes what it charged."""
    cli = Cli(tmp_path / "home", database_url)
    key = cli.key("--alias", "ci", "--model", "gpt-4o")
    never = {"KEYCTL_GATEWAY_FLUSH_INTERVAL": "3600"}

    with proxy(tmp_path / "proxy", database_url, workers=workers, environment=never) as started:
        client = started.client(key)
        assert (complete(client), error_of(client, "claude")[0]) == ("Hello", 403)
        assert complete(client) == "Hello"
        assert spend(cli, "ci") == 0
    assert spend(cli, "ci") == 2 * COST


def test_no_log_holds_a_key_string(cli: Cli, running: Proxy) -> None:
    """Neither one that works nor one that does not is in what the proxy writes."""
    good, bad = cli.key(), "sk-" + "typed-by-mistake-0123456789"
    complete(running.client(good))
    complete(running.client(bad))

    text = running.log.read_text()
    assert good not in text
    assert good[16:] not in text
    assert bad not in text


def spend(cli: Cli, alias: str) -> float:
    """Return what a key has spent."""
    return float(cli("info", alias, "-o", "json", check=True).json["spend"])
