"""The verifier of a gateway: every reason, the cache and its bounds, stampedes and guesses."""

import asyncio
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from gate import Counting, Gate, guess_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyctl import keystring
from keyctl.db.database import utcnow
from keyctl.errors import UsageError
from keyctl.gateway import AsyncVerifier, UnavailableError, Verdict, Verifier
from keyctl.services import verify as service

FAR = timedelta(days=1)
LONG: dict[str, Any] = {"cache_ttl": 3600.0, "negative_ttl": 3600.0}


@pytest.fixture(name="gate")
def _gate(database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(database_url, tmp_path)
    yield gate
    gate.close()


def verdict_on(gate: Gate, text: str, **request: str) -> Verdict:
    """Return what a new verifier says."""
    with Verifier(gate.url) as verifier:
        return verifier.verify(text, **request)


class TestReasons:
    def test_a_valid_key_tells_whose_it_is(self, gate: Gate) -> None:
        """The fields are those of `keyctl verify`, and the values too."""
        key = gate.key(key_alias="worker", duration="1d", **gate.owners())

        verdict = verdict_on(gate, key)

        assert asdict(verdict) == asdict(service.verify(gate.database, key))
        assert (verdict.valid, verdict.reason, verdict.key_alias) == (True, None, "worker")
        assert verdict.found is not None
        assert verdict.found.team is not None

    def test_what_is_not_said_is_not_compared(self, gate: Gate) -> None:
        """What a verdict can be charged with is no part of it: two that say the same are the same."""
        key = gate.key()
        verdict = verdict_on(gate, key)
        assert verdict == Verdict(**asdict(verdict))

    @pytest.mark.parametrize(
        "text",
        ["", "sk-", "hello", "sk-short", "sk-ü" + "x" * 30, "sk-" + "x" * 5000, "\ud800", "sk-a b"],
    )
    def test_what_cannot_be_a_key_is_malformed(self, text: str, tmp_path: Path) -> None:
        """It costs neither bcrypt nor database: there is none."""
        matches = Counting()
        with Verifier(f"sqlite:///{tmp_path}/none.db", matches=matches) as verifier:
            assert verifier.verify(text) == Verdict(valid=False, reason="malformed")
        assert matches.count == 0

    def test_a_mistyped_key_is_malformed(self, gate: Gate) -> None:
        """The checksum catches it."""
        key = gate.key()
        mistyped = key[:-1] + ("a" if key[-1] != "a" else "b")
        assert verdict_on(gate, mistyped) == Verdict(valid=False, reason="malformed")

    def test_nobody_s_key_is_unknown_without_bcrypt(self, gate: Gate) -> None:
        """So is a guess at the secret of a public id, which costs one."""
        key, matches = gate.key(), Counting()
        with Verifier(gate.url, matches=matches) as verifier:
            strangers = [keystring.mint().reveal(), "sk-somebody-else's-own-key"]
            verdicts = [verifier.verify(text) for text in strangers]
            assert (verdicts, matches.count) == ([Verdict(valid=False, reason="unknown")] * 2, 0)
            assert verifier.verify(guess_at(key, 1)).reason == "unknown"
        assert matches.count == 1

    def test_a_malformed_hash_matches_nothing(self, gate: Gate) -> None:
        """No traceback."""
        key = gate.key()
        gate.execute("UPDATE secrets SET hash = 'nonsense'")
        assert verdict_on(gate, key).reason == "unknown"

    def test_a_newer_schema_is_fine(self, gate: Gate) -> None:
        """Of the same major version; of another one nothing is said about any key."""
        key = gate.key()
        gate.execute("ALTER TABLE teams ADD COLUMN motto TEXT")
        gate.execute("UPDATE alembic_version SET version_num = '1_9999'")
        assert verdict_on(gate, key).valid
        gate.execute("UPDATE alembic_version SET version_num = '2_0001'")
        with pytest.raises(UnavailableError):
            verdict_on(gate, key)


PAST_OR_NOT = st.sampled_from([None, -FAR, FAR])
OWNER = st.fixed_dictionaries(
    {
        "blocked": st.booleans(),
        "deleted_at": st.sampled_from([None, -FAR]),
        "max_budget": st.sampled_from([None, 0, 5]),
        "spend": st.sampled_from([0, 4, 5, 6]),
    }
)
STATES = st.fixed_dictionaries(
    {
        "keys": OWNER.flatmap(
            lambda owner: st.fixed_dictionaries(
                {**{name: st.just(value) for name, value in owner.items()}, "expires": PAST_OR_NOT}
            )
        ),
        "secrets": st.fixed_dictionaries(
            {
                "state": st.sampled_from(["staged", "active", "retiring", "revoked"]),
                "not_after": PAST_OR_NOT,
            }
        ),
        "teams": OWNER,
        "users": OWNER,
        "organizations": OWNER,
    }
)


def change(gate: Gate, states: dict[str, dict[str, Any]]) -> None:
    """Set columns of all rows; lengths of time count from now."""
    from sqlalchemy import update

    from keyctl.db.tables import metadata

    with gate.database.write() as connection:
        for table, values in states.items():
            columns = {
                name: utcnow() + value if isinstance(value, timedelta) else value
                for name, value in values.items()
            }
            connection.execute(update(metadata.tables[table]).values(columns))


def test_the_gateway_and_the_command_agree(gate: Gate) -> None:
    """Whatever the states of key, secret and owners: a first look, a second and `verify` say the same."""
    key = gate.key(**gate.owners())
    with Verifier(gate.url, cache_ttl=0.001) as seasoned:

        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(STATES)
        def agree(states: dict[str, dict[str, Any]]) -> None:
            change(gate, states)
            expected = asdict(service.verify(gate.database, key))
            assert asdict(verdict_on(gate, key)) == expected
            threading.Event().wait(0.002)
            assert asdict(seasoned.verify(key)) == expected

        agree()


class TestModelsAndRoutes:
    def test_any_number_of_models_may_be_asked_for(self, gate: Gate) -> None:
        """What is remembered of one says nothing about another, nor is one forgotten judged otherwise."""
        key = gate.key(models=["gpt-1*"], model_max_budget={"gpt-12": {"max_budget": 1}})
        names = [f"gpt-{number}" for number in range(200)]
        with Verifier(gate.url) as verifier:
            verifier.verify(key, model="gpt-12").record(1)
            for _ in range(2):
                for name in names:
                    reason = verifier.verify(key, model=name).reason
                    wanted = None if name.startswith("gpt-1") else "model_denied"
                    assert reason == ("budget_exceeded" if name == "gpt-12" else wanted)

    @pytest.mark.parametrize(
        ("key", "team", "organization", "user", "model", "allowed"),
        [
            ([], [], [], [], "gpt-4o", True),
            (["gpt-4o"], [], [], [], "gpt-4o", True),
            (["gpt-4o"], [], [], [], "gpt-4", False),
            (["gpt-*"], [], [], [], "gpt-4", True),
            (["gpt-3.5*"], [], [], [], "gpt-345", False),
            (["*"], [], [], [], "anything", True),
            ([], ["gpt-4o"], [], [], "claude", False),
            (["all-team-models"], ["gpt-4o"], [], [], "gpt-4o", True),
            (["all-team-models"], ["gpt-4o"], [], [], "claude", False),
            (["claude"], ["gpt-4o"], [], [], "claude", False),
            ([], [], ["gpt-4o"], [], "claude", False),
            ([], [], [], ["gpt-4o"], "claude", False),
            ([], [], [], ["no-default-models"], "claude", True),
            (["no-default-models"], [], [], [], "claude", False),
        ],
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_model_is_in_every_list(
        self,
        gate: Gate,
        key: list[str],
        team: list[str],
        organization: list[str],
        user: list[str],
        model: str,
        allowed: bool,
    ) -> None:
        """The key's, its team's, organization's and user's, as they are now; an empty one inherits."""
        text = gate.key(**gate.owners())
        lists = {"keys": key, "teams": team, "organizations": organization, "users": user}
        change(gate, {table: {"models": models} for table, models in lists.items()})

        assert verdict_on(gate, text, model=model).reason == (None if allowed else "model_denied")

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_personal_key_of_a_user_without_personal_models(self, gate: Gate) -> None:
        """`no-default-models`: only through a team."""
        gate.owners()
        text = gate.key(user_id="ada")
        change(gate, {"users": {"models": ["no-default-models"]}})
        assert verdict_on(gate, text, model="gpt-4o").reason == "model_denied"
        assert verdict_on(gate, text).valid

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_an_alias_stands_for_its_model(self, gate: Gate) -> None:
        """What is checked is what will be called."""
        text = gate.key(models=["gpt-4o"], aliases={"fast": "gpt-4o", "gpt-4o": "claude"})
        with Verifier(gate.url) as verifier:
            assert verifier.verify(text, model="fast").valid
            assert verifier.verify(text, model="gpt-4o").reason == "model_denied"

    @pytest.mark.parametrize(
        ("request_", "route", "allowed"),
        [
            ({}, "/v1/chat/completions", True),
            ({}, "/key/generate", False),
            ({"key_type": "llm_api"}, "/v1/chat/completions", True),
            ({"key_type": "llm_api"}, "/chat/completions", True),
            ({"key_type": "llm_api"}, "/v1beta/models/gemini:generateContent", True),
            ({"key_type": "llm_api"}, "/v1/models", True),
            ({"key_type": "llm_api"}, "/model/info", True),
            ({"key_type": "llm_api"}, "/key/generate", False),
            ({"key_type": "llm_api"}, "/v1/chat/completions/../../../key/generate", False),
            ({"key_type": "llm_api"}, "/openai/%2e%2e/key/generate", False),
            ({"key_type": "llm_api"}, "//key/generate", False),
            ({"key_type": "management"}, "/key/generate", True),
            ({"key_type": "management"}, "/keys", False),
            ({"key_type": "management"}, "/v1/chat/completions", False),
            ({"key_type": "read_only"}, "/key/info", True),
            ({"key_type": "read_only"}, "/key/info/more", False),
            ({"key_type": "read_only"}, "/key/generate", False),
            ({"allowed_routes": ["/v1/embeddings"]}, "/v1/embeddings", True),
            ({"allowed_routes": ["/v1/embeddings"]}, "/v1/embeddings/x", True),
            ({"allowed_routes": ["/v1/embeddings"]}, "/v1/embeddingsx", False),
            ({"allowed_routes": ["/v1/embeddings"]}, "v1/embeddings", False),
            ({"allowed_routes": ["/v1/em*"]}, "/v1/embeddings", True),
        ],
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_route_is_among_the_key_s(
        self, gate: Gate, request_: dict[str, Any], route: str, allowed: bool
    ) -> None:
        """An empty list allows all; a path that leads elsewhere is no way around one."""
        key = gate.key(**request_)
        assert verdict_on(gate, key, route=route).reason == (None if allowed else "route_denied")

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_the_order_of_the_reasons(self, gate: Gate) -> None:
        """State, owners, route, model, budgets: the first one that holds is told."""
        key = gate.key(models=["gpt-4o"], key_type="read_only", **gate.owners())
        asked = {"model": "claude", "route": "/v1/chat/completions"}
        change(gate, {"teams": {"blocked": True}, "keys": {"max_budget": 0}})
        told = []
        for table, values in (
            ("teams", {"blocked": False}),
            ("keys", {"allowed_routes": []}),
            ("keys", {"models": []}),
            ("keys", {"max_budget": None}),
        ):
            told.append(verdict_on(gate, key, **asked).reason)
            change(gate, {table: values})
        assert told == ["team_blocked", "route_denied", "model_denied", "budget_exceeded"]
        assert verdict_on(gate, key, **asked).valid


class TestCache:
    def test_a_known_key_costs_no_database(self, gate: Gate) -> None:
        """Until its entry is to be refreshed, what is in the database is not looked at."""
        key = gate.key()
        with Verifier(gate.url, **LONG) as verifier:
            assert verifier.verify(key).valid
            gate.execute("UPDATE keys SET blocked = true")
            assert verifier.verify(key).valid

    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            ("UPDATE keys SET expires = :end", "expired"),
            ("UPDATE secrets SET not_after = :end, state = 'retiring'", "revoked"),
        ],
    )
    def test_an_end_is_checked_on_every_hit(self, gate: Gate, statement: str, reason: str) -> None:
        """Expiry and the end of a grace period come on time, whatever the database says meanwhile."""
        key = gate.key()
        end = datetime.now(UTC) + timedelta(seconds=3)
        gate.execute(statement, end=end)
        with Verifier(gate.url, **LONG) as verifier:
            before = verifier.verify(key)
            gate.execute(statement, end=end + FAR)
            threading.Event().wait((end - datetime.now(UTC)).total_seconds() + 0.05)
            after = verifier.verify(key)
        assert (before.valid, before.key_id) == (True, after.key_id)
        assert (after.reason, after.secret_state) == (
            reason,
            "revoked" if reason == "revoked" else "active",
        )

    def test_a_revocation_is_seen_within_the_ttl(self, gate: Gate) -> None:
        """By requests that never stop, while no more than one bcrypt is ever spent."""
        key, matches = gate.key(), Counting()
        with Verifier(gate.url, cache_ttl=0.5, matches=matches) as verifier:
            assert verifier.verify(key).valid
            gate.execute("UPDATE secrets SET state = 'revoked'")
            revoked_at = asked_at = time.monotonic()
            while verifier.verify(key).valid:
                assert asked_at - revoked_at < 0.5
                asked_at = time.monotonic()
            assert verifier.verify(key).reason == "revoked"
        assert matches.count == 1

    def test_another_hash_is_another_secret(self, gate: Gate) -> None:
        """A string whose stored hash was replaced has to match again."""
        key, other = gate.key(), gate.key()
        with Verifier(gate.url, cache_ttl=0.001) as verifier:
            assert verifier.verify(key).valid
            gate.execute(
                "UPDATE secrets SET hash = (SELECT hash FROM secrets WHERE id = :other)"
                " WHERE id = :own",
                own=key[3:15],
                other=other[3:15],
            )
            threading.Event().wait(0.01)
            assert verifier.verify(key).reason == "unknown"

    def test_a_stranger_may_become_known(self, gate: Gate) -> None:
        """A negative answer is forgotten after its own time."""
        text = "sk-my-own-supplied-key-0123456789"
        with Verifier(gate.url, negative_ttl=0.05) as verifier:
            assert verifier.verify(text).reason == "unknown"
            gate.key(key=text)
            threading.Event().wait(0.06)
            assert verifier.verify(text).valid

    def test_both_caches_are_bounded(self, gate: Gate) -> None:
        """However many strings come."""
        keys = [gate.key() for _ in range(5)]
        with Verifier(gate.url, cache_size=3, negative_size=4) as verifier:
            for text in [*keys, *(keystring.mint().reveal() for _ in range(50))]:
                verifier.verify(text)
            core = verifier._core
            assert (len(core._known), len(core._negative), core._flights) == (3, 4, {})
            assert [verifier.verify(key).valid for key in keys] == [True] * 5

    def test_no_string_is_kept_or_shown(self, gate: Gate) -> None:
        """Neither in the caches nor in what a verdict, a verifier or an error shows of itself."""
        key = gate.key()
        with Verifier(gate.url, **LONG) as verifier:
            verdict = verifier.verify(key)
            core = verifier._core
            kept = [repr(item) for item in (verdict, verifier, core, verdict.found, *core._known)]
            kept += [repr(core._known), repr(vars(core)), str(core._known.keys())]
            hashed = gate.value("SELECT hash FROM secrets")
        assert not [text for text in kept if key in text or key[16:] in text or hashed in text]
        assert all(len(digest) == 32 for digest in core._known)


class TestStampede:
    def test_many_requests_of_threads_for_one_new_key_cost_one_bcrypt(self, gate: Gate) -> None:
        """All wait for the same flight."""
        key, matches = gate.key(), Counting(waits_at={1})
        with (
            Verifier(gate.url, matches=matches) as verifier,
            ThreadPoolExecutor(16) as threads,
        ):
            verdicts = [threads.submit(verifier.verify, key) for _ in range(16)]
            assert matches.reached.acquire(timeout=30)
            matches.go_on.set()
            assert {verdict.result(30).valid for verdict in verdicts} == {True}
        assert matches.count == 1

    def test_many_requests_of_a_loop_for_one_new_key_cost_one_bcrypt(self, gate: Gate) -> None:
        """And one that is cancelled cancels nobody else."""
        key, matches = gate.key(), Counting(waits_at={1})

        async def stampede() -> list[Verdict | BaseException]:
            async with AsyncVerifier(gate.url, matches=matches) as verifier:
                requests = [asyncio.create_task(verifier.verify(key)) for _ in range(200)]
                assert await asyncio.to_thread(matches.reached.acquire, timeout=30)
                requests[0].cancel()
                await asyncio.sleep(0)
                matches.go_on.set()
                return await asyncio.gather(*requests, return_exceptions=True)

        first, *others = asyncio.run(stampede())

        assert isinstance(first, asyncio.CancelledError)
        assert all(isinstance(other, Verdict) and other.valid for other in others)
        assert matches.count == 1

    def test_a_request_waits_for_its_time_only(self, gate: Gate) -> None:
        """Then it is a 503; the flight goes on, and serves who asks again."""
        key, matches = gate.key(), Counting(waits_at={1})
        with Verifier(gate.url, timeout=0.2, matches=matches) as verifier:
            with pytest.raises(UnavailableError, match="in time"):
                verifier.verify(key)
            (flight,) = verifier._core._flights.values()
            matches.go_on.set()
            assert flight.result(30) is not None
            assert verifier.verify(key).valid
        assert matches.count == 1


class TestGuesses:
    def test_guesses_starve_neither_known_nor_new_keys(self, gate: Gate) -> None:
        """A flood at one public id fills a lane of its own; what does not fit there is refused at once."""
        known, attacked, new = gate.key(), gate.key(), gate.key()
        # The first guess is a guess like any; all that follow are known to be.
        matches = Counting(waits_at={3})
        with (
            Verifier(gate.url, bcrypt_workers=1, matches=matches, timeout=30) as verifier,
            ThreadPoolExecutor(4) as threads,
        ):
            assert verifier.verify(known).valid
            assert verifier.verify(guess_at(attacked, 0)).reason == "unknown"
            flood = [threads.submit(verifier.verify, guess_at(attacked, n)) for n in range(1, 5)]
            for _ in range(3):
                assert matches.reached.acquire(timeout=30)  # the third of them stands still
            while verifier._core._checks._pending[attacked[3:15]] < 4:
                threading.Event().wait(0.001)

            with pytest.raises(UnavailableError, match="too many strings"):
                verifier.verify(guess_at(attacked, 99))
            assert verifier.verify(known).valid
            assert verifier.verify(new).valid

            matches.go_on.set()
            assert {guess.result(30).reason for guess in flood} == {"unknown"}
            assert verifier.verify(attacked).valid

    def test_a_good_key_clears_its_id(self, gate: Gate) -> None:
        """Who was guessed at and then comes himself is nobody to be suspicious of."""
        key = gate.key()
        with Verifier(gate.url) as verifier:
            verifier.verify(guess_at(key, 1))
            assert len(verifier._core._checks._suspects) == 1
            assert verifier.verify(key).valid
            assert len(verifier._core._checks._suspects) == 0

    def test_strangers_wait_in_a_bounded_queue(self) -> None:
        """What does not fit is refused at once."""
        from keyctl.gateway.loader import Loader

        begun, go_on = threading.Event(), threading.Event()

        def load(_: Any) -> dict[str, Any]:
            begun.set()
            go_on.wait(30)
            return {}

        loader = Loader(load, name="test", room=2)
        answers = [loader.ask("first")]
        assert begun.wait(30)
        answers += [loader.ask("second"), loader.ask("third")]
        with pytest.raises(UnavailableError, match="too many"):
            loader.ask("fourth")
        go_on.set()
        assert [answer.result(30) for answer in answers] == [None] * 3
        loader.close()
        with pytest.raises(UnavailableError, match="closed"):
            loader.ask("fifth")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"cache_ttl": 0},
        {"cache_ttl": float("nan")},
        {"negative_ttl": -1},
        {"cache_size": 0},
        {"negative_size": -5},
        {"outage_grace": -0.1},
        {"flush_interval": float("inf")},
        {"bcrypt_workers": 0},
        {"timeout": 0},
        {"database_timeout": 1e9},
    ],
)
def test_nonsense_is_refused(nonsense: dict[str, Any]) -> None:
    """The error names what is wrong."""
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        Verifier("sqlite:////nowhere/keyctl.db", **nonsense)


def test_a_url_that_is_none_is_refused() -> None:
    """At once, and without repeating it."""
    with pytest.raises(UsageError) as caught:
        Verifier("mysql://root:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_a_database_that_is_not_there_is_a_503(tmp_path: Path) -> None:
    """Never an accept, nothing is created, and the error does not hold the key string."""
    key = keystring.mint().reveal()
    with (
        Verifier(f"sqlite:///{tmp_path}/none.db") as verifier,
        pytest.raises(UnavailableError, match="no database") as caught,
    ):
        verifier.verify(key)
    assert list(tmp_path.iterdir()) == []
    assert key[16:] not in "".join(traceback.format_exception(caught.value))


class TestForeignRows:
    def test_one_key_that_cannot_be_read_stops_no_other(self, gate: Gate) -> None:
        """Loaded at once with others, it is 503 by its name; they are verified."""
        good, bad = gate.key(key_alias="good"), gate.key(key_alias="bad")
        gate.execute("UPDATE keys SET models = '[1,2' WHERE key_alias = 'bad'")

        with Verifier(gate.url) as verifier:
            with pytest.raises(UnavailableError, match="its models is not what keyctl wrote"):
                verifier.verify(bad)
            assert verifier.verify(good).valid
            # Both in one query, as when many wait.
            parsed = [key for text in (good, bad) if (key := keystring.parse(text))]
            found = verifier._core._source.load([key.lookup for key in parsed])
        assert {type(item).__name__ for item in found.values()} == {"Entry", "UnavailableError"}
