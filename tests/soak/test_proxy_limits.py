"""What LiteLLM's real proxy enforces of a key, and what it tells its owner is left."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from stand import COST, Stand, refused

openai = pytest.importorskip("openai")
pytest.importorskip("litellm")

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("litellm")]


@pytest.fixture(scope="module", name="stand")
def _stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Everything on this machine."""
    stand = Stand(tmp_path_factory.mktemp("stand"))
    yield stand
    stand.close()


def ask(client: Any, model: str = "gpt-4o", **more: Any) -> Any:
    """Ask for a completion."""
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], **more
    )


class TestRoutes:
    def test_a_default_key_retrieves_a_model_and_reaches_no_files(self, stand: Stand) -> None:
        """`client.models.retrieve` works, files and batches are for keys that say so."""
        client = stand.running.client(stand.cli.key())

        assert client.models.retrieve("gpt-4o").id == "gpt-4o"
        assert "gpt-4o" in [model.id for model in client.models.list()]
        assert refused(client.files.list) == 403
        assert refused(lambda: client.batches.retrieve("batch_1")) == 403

    def test_litellm_s_own_group_works(self, stand: Stand) -> None:
        """`openai_routes` covers chat and models."""
        client = stand.running.client(stand.cli.key("--allowed-route", "openai_routes"))

        assert ask(client).choices[0].message.content == "Hello"
        assert client.models.retrieve("gpt-4o").id == "gpt-4o"

    def test_a_bare_name_matches_its_provider_s_wildcard(self, stand: Stand) -> None:
        """`openai/*` allows gpt-4o, and the proxy agrees."""
        client = stand.running.client(stand.cli.key("--model", "openai/*"))

        assert ask(client).choices[0].message.content == "Hello"
        assert refused(lambda: ask(client, "free")) == 403


class TestSpentBudgets:
    def test_discovery_and_free_models_are_left(self, stand: Stand) -> None:
        """What costs nothing goes on working."""
        alias, key = stand.key("--max-budget", "0.2")
        client = stand.running.client(key)
        ask(client)
        assert stand.spends(alias, COST) == COST

        assert refused(lambda: ask(client)) == 429
        assert [model.id for model in client.models.list()]
        assert client.models.retrieve("gpt-4o").id == "gpt-4o"
        assert ask(client, "free").choices[0].message.content == "Hello"

    def test_a_model_without_a_price_is_refused_by_name(self, stand: Stand) -> None:
        """For a key with a budget; one without has nothing to overrun."""
        _, limited = stand.key("--max-budget", "5")
        _, free = stand.key()

        with pytest.raises(openai.PermissionDeniedError, match="the price of model unpriced"):
            ask(stand.running.client(limited), "unpriced")
        assert ask(stand.running.client(free), "unpriced").choices[0].message.content == "Hello"

    def test_twenty_four_threads_spend_no_more_than_two_requests(self, stand: Stand) -> None:
        """$0.50, $0.30 a request: the second takes what is left, the third nothing; and two are served."""
        alias, key = stand.key("--max-budget", "0.5")

        def several(_: int) -> int:
            client, served = stand.running.client(key), 0
            for _ in range(8):
                try:
                    ask(client, max_tokens=20)
                except openai.RateLimitError:
                    continue
                served += 1
            return served

        with ThreadPoolExecutor(24) as pool:
            served = sum(pool.map(several, range(24)))

        assert served == 2
        assert stand.spends(alias, 2 * COST) == 2 * COST


class TestWhatIsLeft:
    def test_the_owner_asks(self, stand: Stand) -> None:
        """`/key/info` tells of each budget what is left, and of which period; of another key it is 403."""
        alias, key = stand.key("--max-budget", "5", "--budget-duration", "30d")
        client = stand.running.client(key)
        ask(client)
        assert stand.spends(alias, COST) == COST

        info = client.get(f"{stand.running.url}/key/info", cast_to=object)

        assert (info["info"]["key_alias"], info["info"]["max_budget"]) == (alias, 5.0)
        (left,) = info["info"]["left"]
        assert {name: left[name] for name in ("of", "max_budget", "left", "period")} == {
            "of": "key",
            "max_budget": 5.0,
            "left": 4.7,
            "period": "30d",
        }
        other = f"{stand.running.url}/key/info?key={stand.key()[0]}"
        assert refused(lambda: client.get(other, cast_to=object)) == 403

    def test_each_answer_tells_it(self, stand: Stand) -> None:
        """In a header that names the period of each number."""
        client = stand.running.client(stand.key("--max-budget", "5")[1])

        answer = client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=20
        )

        assert answer.headers["x-keyctl-budget-left"].startswith("key 4.")
        assert answer.headers["x-keyctl-budget-left"].endswith("of 5.0")


class TestTeams:
    def test_parallel_requests_count_the_team_s(self, stand: Stand) -> None:
        """Three keys of a team that may have one request at a time: one is served."""
        team = f"t-{uuid4().hex[:8]}"
        stand.cli("team", "create", team, check=True)
        stand.cli.execute(f"UPDATE teams SET max_parallel_requests = 1 WHERE id = '{team}'")
        clients = [stand.running.client(stand.cli.key("--team", team)) for _ in range(3)]
        stand.provider.waits = threading.Event()

        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask, client) for client in clients]
            refusals = [answer for answer in asked if _wait(answer) is not None]
            stand.provider.waits.set()
        stand.provider.waits = None

        assert len(refusals) == 2
        assert ask(clients[2]).choices[0].message.content == "Hello"


class TestHandedOn:
    def client(self, stand: Stand, **request: Any) -> Any:
        """Return a client with a key that this body asks for."""
        body = json.dumps({"allowed_routes": ["llm_api_routes"], **request})
        made = stand.cli("generate", "--request", "-", "-o", "json", input=body, check=True)
        return stand.running.client(made.json["key"])

    def test_tag_rpm_limit(self, stand: Stand) -> None:
        """Requests with a tag have a rate of their own."""
        client = self.client(stand, tag_rpm_limit={"nightly": 1})
        tagged: dict[str, Any] = {"extra_body": {"metadata": {"tags": ["nightly"]}}}

        ask(client, **tagged)

        assert refused(lambda: ask(client, **tagged)) == 429
        assert ask(client).choices[0].message.content == "Hello"

    def test_allowed_cache_controls(self, stand: Stand) -> None:
        """A request that steers the cache by what is not among them is refused."""
        client = self.client(stand, allowed_cache_controls=["no-store"])

        assert refused(lambda: ask(client, extra_body={"cache": {"no-cache": True}})) in (401, 403)
        assert ask(client, extra_body={"cache": {"no-store": True}})

    def test_router_settings(self, stand: Stand) -> None:
        """The key's own fallbacks are taken when its model fails."""
        client = self.client(
            stand, router_settings={"fallbacks": [{"gpt-4o": ["free"]}], "num_retries": 0}
        )
        stand.provider.fails_model = "gpt-4o"
        try:
            assert ask(client).model == "free"
        finally:
            stand.provider.fails_model = ""

    def test_enforced_params(self, stand: Stand) -> None:
        """A request without them is refused, without a licence too."""
        client = self.client(stand, enforced_params=["user", "metadata.job"])

        assert refused(lambda: ask(client)) == 400
        assert ask(client, user="ada", extra_body={"metadata": {"job": "nightly"}})

    def test_default_estimated_output_tokens(self, stand: Stand) -> None:
        """What a request reserves that names no bound: less of it lets more run at once."""
        client = self.client(stand, max_budget=5, default_estimated_output_tokens=20)

        answer = client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
        )

        assert float(answer.headers["x-keyctl-budget-left"].split()[1]) > 4


def _wait(answer: Any) -> Exception | None:
    """Return why the request was refused; None when it is still under way after a while."""
    try:
        error: Exception | None = answer.exception(3)
    except TimeoutError:
        return None
    return error
