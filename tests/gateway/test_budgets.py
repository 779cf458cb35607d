"""Every kind of budget: each is held by the verifier, alone and with all its neighbours far away."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from budget_kinds import CENT, KINDS, made, tier
from gate import Gate

from keyctl.gateway import Verifier
from keyctl.principals import principal_values
from keyctl.records import Organization, Principal, Team
from keyctl.services import verify
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.end import EndingService

NEVER: dict[str, Any] = {"flush_interval": 3600.0}


@pytest.fixture(name="gate")
def _gate(database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(database_url, tmp_path)
    yield gate
    gate.close()


@pytest.mark.parametrize("name", KINDS)
class TestEveryKind:
    def test_is_filled_and_not_overrun(self, gate: Gate, name: str) -> None:
        """Two workers, eight threads: of $0.50, requests of $0.30 get $0.60."""
        kind = KINDS[name]
        key = made(gate, kind)
        with (
            Verifier(gate.url) as one,
            Verifier(gate.url) as other,
            ThreadPoolExecutor(8) as threads,
        ):
            begin = threading.Barrier(8)

            def work(verifier: Verifier) -> int:
                begin.wait(30)
                served = 0
                for _ in range(3):
                    verdict = verifier.verify(key, model="gpt-4o")
                    if verdict.valid and verdict.reserve(0.3):
                        verdict.record(0.3)
                        served += 1
                return served

            workers = [threads.submit(work, (one, other)[n % 2]) for n in range(8)]
            assert sum(worker.result(60) for worker in workers) == 2
        assert gate.value(kind.spent) == 60 * CENT
        assert gate.spends() == [60 * CENT] * 4
        assert gate.value("SELECT count(*) FROM leases") == 0

    def test_refuses_once_it_is_spent(self, gate: Gate, name: str) -> None:
        """Also by who only records, and by a verifier that reads it for the first time."""
        key = made(gate, KINDS[name])
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(key, model="gpt-4o").record(0.5)
            assert verifier.verify(key, model="gpt-4o").reason == "budget_exceeded"
        with Verifier(gate.url) as later:
            assert later.verify(key, model="gpt-4o").reason == "budget_exceeded"
        if "model" not in name:
            assert verify.verify(gate.database, key).reason == "budget_exceeded"


class TestWhatIsSpent:
    @pytest.mark.parametrize("name", KINDS)
    def test_is_named_by_the_verdict(self, gate: Gate, name: str) -> None:
        """Whose it is and which, of how much, when it begins anew; the same by both verifiers."""
        key = made(gate, KINDS[name])
        with Verifier(gate.url) as verifier:
            verifier.verify(key, model="gpt-4o").record(0.75)
            (told,) = verifier.verify(key, model="gpt-4o").spent
        own_id = gate.value("SELECT id FROM keys")
        of = next((word for word in ("team", "user", "organization") if word in name), "key")
        of = "team" if "member" in name else of

        assert (told.of, told.limit, told.spend, told.left) == (
            *(of, Decimal("0.5"), Decimal("0.75"), 0),
        )
        assert told.id == {"team": "web", "user": "ada", "organization": "acme", "key": own_id}[of]
        assert (told.resets_at is None) == (told.period is None)
        with Verifier(gate.url) as later:
            assert later.verify(key, model="gpt-4o").spent == (told,)
        found = verify.verify(gate.database, key)
        assert found.spent == (() if "model" in name else (told,))

    def test_is_told_of_a_refused_reservation(self, gate: Gate) -> None:
        """What requests under way hold is gone; nothing is named that has something left."""
        key = gate.key(max_budget=0.5, budget_duration="daily", tpd_limit=100)
        with Verifier(gate.url, **NEVER) as verifier:
            first, second = (verifier.verify(key) for _ in range(2))
            assert (first.reserve(0.5), second.used_up() != (), second.valid) == (True, True, True)
            assert not second.reserve(0.5)
            (told,) = second.used_up()
            first.release()
            assert second.used_up() == ()
        own_id = gate.value("SELECT id FROM keys")
        anew = f"{told.resets_at:%Y-%m-%dT00:00:00Z}"
        assert str(told) == f"max_budget of key {own_id}, $0.5 per day, starts again {anew}"


class TestPeriods:
    def test_one_that_is_over_counts_as_new(self, gate: Gate) -> None:
        """No cron runs; the next charge moves its end, by a compare-and-set, without an audit event."""
        key = gate.key(max_budget=1, budget_duration="1d")
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(key).record(1)
        gate.execute(
            "UPDATE keys SET budget_anchor_at = '2026-01-01 00:00:00.000000',"
            " budget_reset_at = '2026-01-02 00:00:00.000000'"
        )
        events = gate.value("SELECT count(*) FROM audit_events")
        assert verify.verify(gate.database, key).valid
        with Verifier(gate.url, **NEVER) as verifier:
            verdict = verifier.verify(key)
            assert verdict.reserve(0.7)
            verdict.record(0.7)
        assert gate.spends()[0] == 70 * CENT
        assert str(gate.value("SELECT budget_reset_at FROM keys")) > "2026-11"
        assert gate.value("SELECT count(*) FROM audit_events") == events

    def test_a_cached_key_begins_its_period_at_once(self, gate: Gate) -> None:
        """In the middle of being used, without being read again."""
        key = gate.key(max_budget=1, budget_duration="1s")
        with Verifier(gate.url, cache_ttl=3600, **NEVER) as verifier:
            verifier.verify(key).record(1)
            assert verifier.verify(key).reason == "budget_exceeded"
            for _ in range(300):
                if verifier.verify(key).valid:
                    break
                threading.Event().wait(0.01)
            verdict = verifier.verify(key)
            assert verdict.valid
            verdict.record(0.25)
            verifier.flush()
        assert gate.spends()[0] in (25 * CENT, 125 * CENT)

    def test_a_window_that_is_over_counts_as_new(self, gate: Gate) -> None:
        """Each window by itself: the longer one goes on."""
        windows = [
            {"budget_duration": "1d", "max_budget": 1},
            {"budget_duration": "1mo", "max_budget": 1.5},
        ]
        key = gate.key(budget_limits=windows)
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(key).record(1)
            assert verifier.verify(key).reason == "budget_exceeded"
        gate.execute(
            "UPDATE meters SET budget_reset_at = '2026-01-02 00:00:00.000000'"
            " WHERE meter = 'window:1d'"
        )
        with Verifier(gate.url, **NEVER) as verifier:
            verdict = verifier.verify(key)
            assert verdict.reserve(1)
            verdict.record(0.5)
            assert verifier.verify(key).reason == "budget_exceeded"
        spends = [
            gate.value(f"SELECT spend FROM meters WHERE meter = 'window:{period}'")
            for period in ("1d", "1mo")
        ]
        assert spends == [50 * CENT, 150 * CENT]

    def test_what_was_overspent_may_be_kept(self, gate: Gate) -> None:
        """Where `budget_rollover` says so."""
        key = gate.key(max_budget=1, budget_duration="1d", spend=1.25)
        gate.execute("UPDATE keys SET budget_reset_at = '2026-01-02 00:00:00.000000'")
        with Verifier(gate.url, budget_rollover=True, **NEVER) as verifier:
            verifier.verify(key).record(0.5)
        assert gate.spends()[0] == 75 * CENT


class TestModels:
    def test_other_models_are_not_charged(self, gate: Gate) -> None:
        """Each model has a budget of its own; a provider's prefix and an alias do not get around it."""
        key = gate.key(
            model_max_budget={"gpt-4o": {"max_budget": 1}, "o1": {"max_budget": 1}},
            aliases={"fast": "gpt-4o"},
        )
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(key, model="gpt-4o").record(1)
            spent = [
                verifier.verify(key, model=model).reason
                for model in ("gpt-4o", "openai/gpt-4o", "fast", "o1", "gpt-4o-mini", None)
            ]
        assert spent == ["budget_exceeded"] * 3 + [None] * 3

    def test_a_request_that_several_may_answer_is_charged_to_each(self, gate: Gate) -> None:
        """And to the key once; it is refused when one of them has nothing left."""
        key = gate.key(
            max_budget=9, model_max_budget={"gpt-4o": {"max_budget": 2}, "o1": {"max_budget": 1}}
        )
        with Verifier(gate.url, **NEVER) as verifier:
            first, other = (verifier.verify(key, model=model) for model in ("gpt-4o", "o1"))
            both = first.joined([other])
            assert [left.left // CENT for left in both.left()] == [900, 200, 100]
            assert both.reserve(1)
            assert not first.joined([other]).reserve(1)
            both.record(1)
            left = [item.left // CENT for item in both.left()]
        assert left == [800, 100, 0]
        assert gate.spends()[0] == 100 * CENT

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_both_forms_are_one(self, gate: Gate) -> None:
        """LiteLLM's manual has other names than its request."""
        gate.key(model_max_budget={"o1": {"budget_limit": 0.01, "time_period": "1d"}})
        stored = gate.value("SELECT model_max_budget FROM keys")
        assert stored == '{"o1":{"max_budget":0.01,"budget_duration":"1d"}}'


class TestTeams:
    """Windows and budgets of single models that are a team's."""

    BUDGETS: ClassVar[dict[str, Any]] = {
        "budget_limits": [{"budget_duration": "1d", "max_budget": 1}],
        "model_max_budget": {"o1": {"max_budget": 0.5, "budget_duration": "1d"}},
    }

    def keys(self, gate: Gate) -> tuple[str, str, str]:
        """Make two keys of a team that has these budgets, and one of its user outside it."""
        owners = gate.owners()
        DirectoryService(gate.workspace).update(
            Team, "web", principal_values(Team, "web", self.BUDGETS)
        )
        return (
            gate.key(**owners),
            gate.key(team_id="web"),
            gate.key(user_id="ada"),
        )

    def test_count_all_its_keys_together(self, gate: Gate) -> None:
        """Also with what a deleted key has spent; who is in no team goes on."""
        first, second, outside = self.keys(gate)
        with Verifier(gate.url, cache_ttl=0.01, **NEVER) as verifier:
            verifier.verify(first, model="gpt-4o").record(0.6)
            verifier.flush()
            EndingService(gate.workspace).delete(
                [gate.value("SELECT id FROM keys WHERE spend > 0")]
            )
            threading.Event().wait(0.02)
            left = verifier.verify(second, model="gpt-4o")
            assert left.reserve(0.4)
            left.record(0.4)
            assert verifier.verify(second, model="gpt-4o").reason == "budget_exceeded"
            assert verifier.verify(outside, model="gpt-4o").valid

    def test_of_a_model_leave_the_others(self, gate: Gate) -> None:
        """By both keys, and under the provider's prefix."""
        first, second, _ = self.keys(gate)
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(first, model="o1").record(0.5)
            told = [verifier.verify(second, model=name).reason for name in ("openai/o1", "o3")]
            assert told == ["budget_exceeded", None]

    def test_begin_anew_without_cron(self, gate: Gate) -> None:
        """The charge that comes first after the end moves it, and writes no audit event."""
        first, second, _ = self.keys(gate)
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(first).record(1)
        events = gate.value("SELECT count(*) FROM audit_events")
        gate.execute("UPDATE meters SET budget_reset_at = '2026-01-02 00:00:00.000000'")
        with Verifier(gate.url, **NEVER) as verifier:
            verdict = verifier.verify(second)
            assert verdict.reserve(0.75)
            verdict.record(0.75)
        assert gate.value("SELECT spend FROM meters WHERE meter = 'window:1d'") == 75 * CENT
        assert gate.value("SELECT count(*) FROM audit_events") == events

    def test_of_a_new_team_are_unspent(self, gate: Gate) -> None:
        """As its own budget is, where an archived team had the same name."""
        directory = DirectoryService(gate.workspace)
        values = principal_values(Team, "web", self.BUDGETS)
        directory.create(Team, "web", values)
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(gate.key(team_id="web"), model="o1").record(1)
        EndingService(gate.workspace).delete([gate.value("SELECT id FROM keys")])
        directory.delete(Team, "web")
        directory.create(Team, "web", values)
        with Verifier(gate.url, **NEVER) as verifier:
            assert verifier.verify(gate.key(team_id="web"), model="o1").valid


class TestTokensOfOwners:
    """Tokens a day of a team and of an organization: all their keys take of them."""

    @pytest.mark.parametrize("word", ["team", "organization"])
    def test_are_one_purse(self, gate: Gate, word: str) -> None:
        """An archived one's are not counted for the next of its name."""
        owner: type[Principal] = {"team": Team, "organization": Organization}[word]
        directory = DirectoryService(gate.workspace)
        place = {f"{word}_id": "mine"}
        directory.create(owner, "mine", {"tpd_limit": 1000})
        first, second = gate.key(**place), gate.key(**place)
        with Verifier(gate.url, **NEVER) as verifier:
            verdict = verifier.verify(first)
            assert verdict.reserve(0.1, tokens=800)
            assert verifier.verify(second).reserve(0.1, tokens=300)
            assert not verifier.verify(second).reserve(0.1, tokens=1)
            verdict.record(0.1, tokens=1000)
        assert verify.verify(gate.database, second).reason == "budget_exceeded"
        EndingService(gate.workspace).delete(
            [gate.value("SELECT min(id) FROM keys"), gate.value("SELECT max(id) FROM keys")]
        )
        directory.delete(owner, "mine")
        directory.create(owner, "mine", {"tpd_limit": 1000})
        assert verify.verify(gate.database, gate.key(**place)).valid


class TestTokens:
    def test_a_day_has_so_many(self, gate: Gate) -> None:
        """Reserved and recorded beside the money, by all processes together."""
        key = gate.key(tpd_limit=1000)
        with Verifier(gate.url, **NEVER) as one, Verifier(gate.url, **NEVER) as other:
            first, second = one.verify(key), other.verify(key)
            assert first.reserve(0.1, tokens=800)
            assert second.reserve(0.1, tokens=800)
            assert not one.verify(key).reserve(0.1, tokens=1)
            first.record(0.1, tokens=700)
            second.record(0.1, tokens=300)
            one.flush()
        assert gate.value("SELECT spend FROM meters WHERE meter = 'tokens:daily'") == 1000
        with Verifier(gate.url) as later:
            assert later.verify(key).reason == "budget_exceeded"

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_what_is_no_number_of_tokens_is_refused(self, gate: Gate) -> None:
        """And nothing is recorded."""
        key = gate.key(tpd_limit=1000)
        with Verifier(gate.url) as verifier:
            for nonsense in (-1, 0.5, True):
                with pytest.raises(ValueError, match="tokens"):
                    verifier.verify(key).record(1, tokens=nonsense)  # type: ignore[arg-type]
        assert gate.spends()[0] == 0


class TestTiers:
    def test_each_one_who_names_it_has_spent_its_own(self, gate: Gate) -> None:
        """The amount is in one place; a change of it is everybody's."""
        tier(gate, 1)
        keys = [gate.key(), gate.key()]
        gate.execute("UPDATE keys SET budget_id = 'small'")
        with Verifier(gate.url, cache_ttl=0.01, **NEVER) as verifier:
            verifier.verify(keys[0]).record(1)
            assert verifier.verify(keys[0]).reason == "budget_exceeded"
            assert verifier.verify(keys[1]).valid
            gate.execute(f"UPDATE budgets SET max_budget = {200 * CENT}")
            threading.Event().wait(0.02)
            assert verifier.verify(keys[0]).valid
