"""What LiteLLM's real proxy enforces of a key, and what it tells its owner is left."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
