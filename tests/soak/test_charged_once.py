"""Batches, background answers and files through LiteLLM's real proxy: charged once, and nobody else's to read."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest
from stand import COST, Stand, refused

openai = pytest.importorskip("openai")
pytest.importorskip("litellm")

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("litellm")]

BATCH_COST = 0.15  # a batch's line is charged half
LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 20,
    },
}


MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
CONTENTS: dict[str, Any] = {
    "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
    "generationConfig": {"maxOutputTokens": 20},
}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"model": "gpt-4o", **MESSAGES}),
    "engines": ("/engines/gpt-4o/chat/completions", MESSAGES),
    "azure": ("/openai/deployments/gpt-4o/chat/completions", MESSAGES),
    "anthropic": ("/v1/messages", {"model": "gpt-4o", **MESSAGES}),
    "anthropic-stream": ("/v1/messages", {"model": "gpt-4o", "stream": True, **MESSAGES}),
    "responses": ("/v1/responses", {"model": "gpt-4o", "input": "hi", "max_output_tokens": 20}),
    "responses-stream": (
        "/v1/responses",
        {"model": "gpt-4o", "input": "hi", "max_output_tokens": 20, "stream": True},
    ),
    "compact": ("/v1/responses/compact", {"model": "gpt-4o", "input": "hi"}),
    "gemini": ("/v1beta/models/gpt-4o:generateContent", CONTENTS),
    "gemini-stream": ("/v1beta/models/gpt-4o:streamGenerateContent?alt=sse", CONTENTS),
}


@pytest.fixture(scope="module", name="stand")
def _stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Everything on this machine."""
    cache = {"cache": True, "cache_params": {"type": "local", "mode": "default_off"}}
    stand = Stand(tmp_path_factory.mktemp("stand"), settings=cache)
    yield stand
    stand.close()


def upload(client: Any) -> Any:
    """Upload a batch of one line."""
    return client.files.create(
        file=("a.jsonl", json.dumps(LINE).encode()),
        purpose="batch",
        extra_headers={"x-litellm-model": "gpt-4o"},
    )


def begin_batch(client: Any) -> Any:
    """Upload a file and begin a batch of it."""
    return client.batches.create(
        input_file_id=upload(client).id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
    )


class TestBatches:
    def test_ten_polls_from_three_keys_are_one_charge_to_the_maker(self, stand: Stand) -> None:
        """Also when the proxy is started anew between them; the others get 403."""
        alias, key = stand.key()
        others = [stand.key() for _ in range(2)]
        batch = begin_batch(stand.running.client(key))
        stand.provider.finish()

        for number in range(10):
            assert stand.running.client(key).batches.retrieve(batch.id).status == "completed"
            for _, other in others:
                poll = partial(stand.running.client(other).batches.retrieve, batch.id)
                assert refused(poll) == 403
            if number == 4:
                assert stand.spends(alias, BATCH_COST) == BATCH_COST
                stand.restart()

        time.sleep(1)
        assert stand.spend(alias) == BATCH_COST
        assert [stand.spend(other) for other, _ in others] == [0.0, 0.0]

    def test_what_it_may_cost_is_reserved_until_it_is_done(self, stand: Stand) -> None:
        """The file said how much that is; then only what it has cost is gone."""
        alias, key = stand.key("--max-budget", "0.35")
        client = stand.running.client(key)
        first = begin_batch(client)

        assert refused(lambda: [begin_batch(client) for _ in range(3)]) == 429

        stand.provider.finish()
        client.batches.retrieve(first.id)
        assert stand.spends(alias, BATCH_COST) == BATCH_COST

    def test_a_list_holds_the_key_s_own(self, stand: Stand) -> None:
        """Batches and files of others are left out."""
        mine, other = (stand.running.client(stand.key()[1]) for _ in range(2))
        batch = begin_batch(mine)
        begin_batch(other)

        listed = mine.batches.list(extra_query={"model": "gpt-4o"})

        assert [item.id for item in listed.data] == [batch.id]

    def test_a_file_is_its_maker_s(self, stand: Stand) -> None:
        """Neither read nor deleted nor made a batch of by another; the results too."""
        mine, other = (stand.running.client(stand.key()[1]) for _ in range(2))
        file = upload(mine)
        batch = mine.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        stand.provider.finish()
        output = mine.batches.retrieve(batch.id).output_file_id

        assert b"chat.completion" in mine.files.content(output).content
        for ask in (
            lambda: other.files.content(output),
            lambda: other.files.retrieve(file.id),
            lambda: other.files.delete(file.id),
            lambda: other.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            ),
        ):
            assert refused(ask) == 403

    def test_each_line_is_for_a_model_that_the_key_may_use(self, stand: Stand) -> None:
        """Its file is refused when it is uploaded, and so is one that does not tell."""
        client = stand.running.client(stand.key("--model", "free")[1])

        def upload_of(content: bytes) -> Any:
            return client.files.create(file=("a.jsonl", content), purpose="batch")

        assert refused(lambda: upload_of(json.dumps(LINE).encode())) == 403
        assert refused(lambda: upload_of(b"{}")) == 400


class TestBackgroundAnswers:
    def test_ten_polls_are_one_charge_to_the_maker(self, stand: Stand) -> None:
        """Nothing is charged before it is done, 403 for others, and nothing more after a restart."""
        alias, key = stand.key()
        other = stand.running.client(stand.key()[1])
        answer = stand.running.client(key).responses.create(
            model="gpt-4o", input="hi", background=True
        )
        assert stand.running.client(key).responses.retrieve(answer.id).status == "in_progress"
        stand.provider.finish()

        for _ in range(5):
            assert stand.running.client(key).responses.retrieve(answer.id).status == "completed"
            assert refused(lambda: other.responses.retrieve(answer.id)) == 403
        assert stand.spends(alias, COST) == COST

        later = stand.running.client(key).responses.create(
            model="gpt-4o", input="hi", background=True
        )
        stand.restart()
        stand.provider.finish()
        stand.running.client(key).responses.retrieve(later.id)
        assert stand.spends(alias, 2 * COST) == 2 * COST

    def test_it_does_not_escape_a_budget(self, stand: Stand) -> None:
        """What it may cost is reserved while it runs: the next one finds nothing left."""
        _, key = stand.key("--max-budget", "0.5")
        client = stand.running.client(key)

        client.responses.create(model="gpt-4o", input="hi", background=True, max_output_tokens=60)

        assert (
            refused(lambda: client.responses.create(model="gpt-4o", input="hi", background=True))
            == 429
        )

    def test_an_id_that_nobody_made_is_refused(self, stand: Stand) -> None:
        """Whatever it looks like."""
        client = stand.running.client(stand.key()[1])

        assert refused(lambda: client.responses.retrieve("resp_1")) == 403
        assert refused(lambda: client.batches.retrieve("batch_1")) == 403
        assert refused(lambda: client.files.retrieve("file-1")) == 403


class TestOtherAnswers:
    def test_a_compaction_holds_nothing_when_it_is_done(self, stand: Stand) -> None:
        """It has no status, and is no answer in the background."""
        _, key = stand.key("--max-budget", "0.9")
        url, told = stand.running.url, {"authorization": f"Bearer {key}"}

        def ask(form: str) -> int:
            path, body = FORMS[form]
            return int(httpx.post(f"{url}{path}", json=body, headers=told, timeout=60).status_code)

        assert [ask(form) for form in ("compact", "chat", "chat", "chat")] == [200, 200, 200, 429]

    def test_what_is_refused_before_it_is_served_holds_nothing(self, stand: Stand) -> None:
        """FastAPI says that the file is missing; LiteLLM tells its callbacks of nothing."""
        _, key = stand.key("--max-budget", "0.5")
        form = {"model": "gpt-4o", "max_tokens": "1000000"}
        told = {"authorization": f"Bearer {key}"}

        url = f"{stand.running.url}/v1/audio/transcriptions"
        assert httpx.post(url, data=form, headers=told, timeout=60).status_code == 422

        assert [left["left"] for left in stand.left(key)] == [0.5]

    def test_streams_whole_and_cut_are_charged(self, stand: Stand) -> None:
        """One charge each; a stream that its client leaves is charged too."""
        alias, key = stand.key()
        client = stand.running.client(key)
        asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}

        list(client.chat.completions.create(**asked))
        assert stand.spends(alias, COST) == COST

        cut = client.chat.completions.create(**asked)
        next(iter(cut))
        cut.close()
        assert stand.spends(alias, 2 * COST) > COST

    @pytest.mark.parametrize("form", FORMS)
    def test_each_form_of_a_request_is_one_charge(self, stand: Stand, form: str) -> None:
        """Of money and of tokens, and reserves what it may cost: a key without so much is refused by it."""
        alias, key = stand.key("--max-budget", "5", "--tpd-limit", "10000")
        _, spent = stand.key("--max-budget", "0")
        path, body = FORMS[form]
        url = f"{stand.running.url}{path}"

        def ask(key: str) -> Any:
            told = {"authorization": f"Bearer {key}"}
            return httpx.post(url, json=body, headers=told, timeout=60)

        answer = ask(key)

        assert (answer.status_code, ask(spent).status_code) == (200, 429)
        assert float(answer.headers["x-keyctl-budget-left"].split()[1]) < 5
        assert stand.spends(alias, COST) == COST
        assert [left["left"] for left in stand.left(key)] == [4.7, 9970]

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_an_answer_from_the_proxy_s_cache_costs_nothing(
        self, stand: Stand, is_stream: bool
    ) -> None:
        """Whoever asked first is charged; what others reserved for it is free again."""
        alias, key = stand.key()
        other, others = stand.key("--max-budget", "0.5")
        asked: dict[str, Any] = {
            "messages": [{"role": "user", "content": f"cached {is_stream}"}],
            "max_tokens": 20,
            "extra_body": {"cache": {"use-cache": True}},
        }

        def ask(key: str) -> None:
            client = stand.running.client(key)
            answer = client.chat.completions.create(model="gpt-4o", stream=is_stream, **asked)
            assert list(answer) if is_stream else answer.choices

        ask(key)
        assert stand.spends(alias, COST) == COST
        before = len(stand.provider.asked)

        for _ in range(4):
            ask(others)

        assert len(stand.provider.asked) == before
        info = stand.running.client(others).get(f"{stand.running.url}/key/info", cast_to=object)
        assert [left["left"] for left in info["info"]["left"]] == [0.5]
        assert stand.spend(other) == 0.0

    def test_a_stream_that_its_provider_breaks_off_is_charged_for_what_came(
        self, stand: Stand
    ) -> None:
        """And it holds nothing any more."""
        alias, key = stand.key("--max-budget", "0.5")
        stand.provider.breaks_off = 1
        # All closed, or a connection is left to whoever collects garbage last.
        with stand.running.client(key) as client:
            stream = client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "broken off"}],
                max_tokens=20,
                stream=True,
            )
            with stream, pytest.raises(openai.APIError):
                for _ in stream:
                    pass

            assert 0 < stand.spends(alias, 0.2) < COST
            (left,) = client.get(f"{stand.running.url}/key/info", cast_to=object)["info"]["left"]
            assert left["left"] == 0.5 - stand.spend(alias)

    @pytest.mark.parametrize("form", ["responses-stream", "anthropic-stream"])
    def test_so_is_one_of_another_form(self, stand: Stand, form: str) -> None:
        """LiteLLM tells what came of it, as of chat."""
        alias, key = stand.key("--max-budget", "0.5")
        stand.provider.breaks_off = 1
        client = stand.running.client(key)
        path, body = FORMS[form]

        with suppress(httpx.HTTPError):
            told = {"authorization": f"Bearer {key}"}
            httpx.post(f"{stand.running.url}{path}", json=body, headers=told, timeout=60)

        assert stand.provider.breaks_off == 0
        assert 0 < stand.spends_something(alias) < COST
        (left,) = client.get(f"{stand.running.url}/key/info", cast_to=object)["info"]["left"]
        assert left["left"] == pytest.approx(0.5 - stand.spend(alias))

    def test_a_retry_of_the_proxy_is_one_charge(self, stand: Stand) -> None:
        """The provider failed once, and the answer came from the second attempt."""
        alias, key = stand.key()
        stand.provider.fails_next = 1

        stand.running.client(key).chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
        )

        assert stand.spends(alias, COST) == COST

    def test_a_failed_request_costs_and_holds_nothing(self, stand: Stand) -> None:
        """What it had reserved is free for the next one."""
        alias, key = stand.key("--max-budget", "0.5")
        client = stand.running.client(key)
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 45}

        stand.provider.fails_next = 20
        assert refused(lambda: client.chat.completions.create(model="gpt-4o", **asked)) == 500
        stand.provider.fails_next = 0

        client.chat.completions.create(model="gpt-4o", **asked)
        assert stand.spends(alias, COST) == COST
