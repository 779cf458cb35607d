"""What LiteLLM's real proxy enforces of a key, and what it tells its owner is left."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from stand import COST, Stand, refused

openai = pytest.importorskip("openai")
pytest.importorskip("litellm")

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("litellm")]


HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}


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


def posted(stand: Stand, key: str, path: str, body: Mapping[str, Any]) -> httpx.Response:
    """Post what OpenAI's client would not."""
    told = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{stand.running.url}{path}", json=body, headers=told, timeout=60)


def connected(stand: Stand, key: str, path: str) -> int:
    """Return how the proxy answers whoever wants to begin a WebSocket: 101 when it does."""
    asked = {
        "authorization": f"Bearer {key}",
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    with httpx.stream("GET", f"{stand.running.url}{path}", headers=asked, timeout=60) as answer:
        return int(answer.status_code)


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

    @pytest.mark.parametrize(
        "path",
        [
            "/openai/deployments/gpt-4o/audio/speech",
            "/openai/deployments/gpt-4o/responses",
            "/openai/v1/responses/resp_1",
        ],
    )
    def test_what_litellm_passes_through_is_not_in_the_default(
        self, stand: Stand, path: str
    ) -> None:
        """Some paths of the default are LiteLLM's own with another method only, or not at all."""
        default, passing = stand.cli.key(), stand.cli.key("--allowed-route", "/openai")
        before = len(stand.provider.asked)

        assert posted(stand, default, path, {"model": "gpt-4o", "input": "hi"}).status_code == 403
        assert len(stand.provider.asked) == before
        posted(stand, passing, path, {"model": "gpt-4o", "input": "hi"})
        assert len(stand.provider.asked) > before

    @pytest.mark.parametrize(
        "path", ["/openai/v1/responses?model=gpt-4o", "/openai/deployments/gpt-4o/completions"]
    )
    def test_nor_is_a_websocket_that_it_passes_through(self, stand: Stand, path: str) -> None:
        """OpenAI would answer it for any model, and nothing would be reserved."""
        assert connected(stand, stand.cli.key(), path) == 403

    def test_a_websocket_names_its_model_where_it_begins(self, stand: Stand) -> None:
        """LiteLLM asks nobody about the one in the first message."""
        key = stand.cli.key("--model", "gpt-4o")

        assert connected(stand, key, "/v1/responses") == 403
        assert connected(stand, key, "/v1/responses?model=free") == 403
        assert connected(stand, key, "/v1/responses?model=gpt-4o") == 101


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


class TestBudgetsOfModels:
    @pytest.mark.parametrize("way", ["query", "path", "fallback", "provider", "deployment"])
    def test_they_hold_however_the_model_is_named(self, stand: Stand, way: str) -> None:
        """Beside another model, in case that one fails, or by another name of the same."""
        stand.provider.fails_model = "broken"
        of_model = {"gpt-4o": {"budget_limit": 0.5, "time_period": "1d"}}
        request = {"model_max_budget": of_model, "allowed_routes": ["llm_api_routes"]}
        made = stand.cli("generate", "--request", "-", input=json.dumps(request), check=True)
        key, other = made.stdout.strip(), stand.key()[1]
        chat = "/v1/chat/completions"
        deployment = posted(stand, other, chat, {**HI, "model": "gpt-4o"})
        ways: dict[str, tuple[str, dict[str, Any]]] = {
            "query": (f"{chat}?model=gpt-4o", {"model": "free"}),
            "path": ("/engines/gpt-4o/chat/completions", {"model": "free"}),
            "fallback": (chat, {"model": "broken", "fallbacks": ["gpt-4o"]}),
            "provider": (chat, {"model": "openai/gpt-4o"}),
            "deployment": (chat, {"model": deployment.headers["x-litellm-model-id"]}),
        }
        path, more = ways[way]

        got = [posted(stand, key, path, {**HI, **more}).status_code for _ in range(3)]

        assert got == [200, 200, 429]


class TestModels:
    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
    @pytest.mark.parametrize(
        "more",
        [
            {"extra_body": {"model": "gpt-4o"}},
            {"extra_body": {"previous_response_id": "resp_1"}},
            {"deployment_id": "gpt-4o"},
            {"context_window_fallback_dict": {"openai/free": "gpt-4o"}},
            {"fallbacks": [{"model": "free", "extra_body": {"model": "gpt-4o"}}]},
            {"fallbacks": [{"model": "free", "previous_response_id": "resp_1"}]},
        ],
    )
    def test_nothing_else_is_asked_of_the_provider_than_a_request_says(
        self, stand: Stand, path: str, more: dict[str, Any]
    ) -> None:
        """LiteLLM would put it in the place of what was verified: the model that is asked, or whose answer is read."""
        key, before = stand.cli.key("--model", "free"), len(stand.provider.asked)

        answer = posted(stand, key, path, {**HI, "model": "free", "input": "hi", **more})

        assert (answer.status_code, len(stand.provider.asked)) == (400, before)

    def test_what_else_a_provider_takes_is_passed_on(self, stand: Stand) -> None:
        """`extra_body` is for what LiteLLM does not know."""
        key = stand.cli.key("--model", "free")
        asked = {**HI, "model": "free", "extra_body": {"top_k": 5}}

        assert posted(stand, key, "/v1/chat/completions", asked).status_code == 200

    def test_models_that_a_provider_may_answer_with_are_the_key_s(self, stand: Stand) -> None:
        """OpenRouter takes a list of them beside the first one."""
        key = stand.cli.key("--model", "free")
        asked = {**HI, "model": "free", "models": ["free", "gpt-4o"]}

        assert posted(stand, key, "/v1/chat/completions", asked).status_code == 403


class TestReservations:
    def test_a_tier_that_the_proxy_gives_no_price_is_unpriced(self, stand: Stand) -> None:
        """LiteLLM would charge its table's: for gpt-4o and `priority` a thousandth of what is asked here."""
        _, limited = stand.key("--max-budget", "5")
        _, free = stand.key()

        def ask_for(key: str, tier: str) -> int:
            asked = {**HI, "model": "gpt-4o", "service_tier": tier}
            return int(posted(stand, key, "/v1/chat/completions", asked).status_code)

        assert [ask_for(limited, tier) for tier in ("priority", "default")] == [403, 200]
        assert ask_for(free, "priority") == 200

    @pytest.mark.parametrize(
        ("path", "body", "least"),
        [
            ("/v1/chat/completions", {**HI, "n": "7"}, 1.4),
            ("/v1/chat/completions", {**HI, "max_tokens": "8192"}, 81),
            ("/v1/chat/completions", {**HI, "max_tokens": 8192.0}, 81),
            ("/v1/chat/completions", {**HI, "fallbacks": [{"model": "gpt-4o", "n": 7}]}, 1.4),
            ("/v1/messages", {**HI, "system": "word " * 2000}, 33),
            ("/v1/completions", {"prompt": ["hi"] * 7, "max_tokens": 20}, 1.4),
            ("/v1/completions", {"prompt": "hi", "best_of": 7, "max_tokens": 20}, 1.4),
        ],
    )
    def test_all_that_a_request_says_and_asks_for_is_reserved(
        self, stand: Stand, path: str, body: dict[str, Any], least: float
    ) -> None:
        """Providers make one for each prompt, and some take numbers as texts."""
        _, key = stand.key("--max-budget", "500")

        answer = posted(stand, key, path, {"model": "gpt-4o", **body})

        assert float(answer.headers["x-keyctl-budget-left"].split()[1]) < 500 - least


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
