"""A gateway whose database stops, falls silent, loses answers, or lives in another time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from databases import administered, at
from gate import Gate
from pg_server import Server
from proxy import Proxy
from sqlalchemy import make_url

from keyctl import keystring, money
from keyctl.db.database import Database
from keyctl.gateway import UnavailableError, Verdict, Verifier

QUICK: dict[str, Any] = {"cache_ttl": 0.2, "flush_interval": 0.1, "database_timeout": 1.0}


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[Server]:
    """One server for the module; each test has a database of its own on it."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture(name="gate")
def _gate(server: Server, tmp_path: Path) -> Iterator[Gate]:
    """A database on that server."""
    server.start()
    name = f"keyctl_{uuid4().hex[:12]}"
    with administered(server.url) as execute:
        execute(f'CREATE DATABASE "{name}"')
    database = Database(at(server.url, name))
    database.upgrade()
    database.engine.dispose()
    gate = Gate(at(server.url, name), tmp_path)
    yield gate
    gate.close()


def through(proxy: Proxy, gate: Gate) -> str:
    """Return the URL of the gate's database behind the proxy."""
    name = make_url(gate.url).database
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"


@dataclass
class Load:
    """What requests that never stopped got: how many were served, what was wrong, the longest wait."""

    served: int = 0
    worst: float = 0.0
    fault: BaseException | Verdict | None = None


@contextmanager
def load(verifier: Verifier, key: str, *, cost: Decimal | None = None) -> Iterator[Load]:
    """Verify *key*, and record *cost*, from four threads for as long as the block lasts."""
    result, stop, lock = Load(), threading.Event(), threading.Lock()

    def work() -> None:
        while not stop.is_set() and result.fault is None:
            begun = time.monotonic()
            try:
                verdict = verifier.verify(key)
                if cost is not None:
                    verdict.record(cost)
            except UnavailableError as error:
                result.fault = error
                return
            with lock:
                result.served += 1
                result.worst = max(result.worst, time.monotonic() - begun)
                if not verdict.valid:
                    result.fault = verdict
            stop.wait(0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def eventually(condition: Any, *, within: float = 30.0) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def is_served(verifier: Verifier, key: str) -> bool:
    """Tell whether *key* gets an answer; one that was served before must be valid."""
    try:
        verdict = verifier.verify(key)
    except UnavailableError:
        return False
    assert verdict.reason in (None, "unknown")
    return True


def stranger_is_served(verifier: Verifier) -> bool:
    """Tell whether a string that was never seen gets an answer."""
    return is_served(verifier, keystring.mint().reveal())


class TestServerThatStops:
    def test_known_keys_go_on_and_nothing_recorded_is_lost(
        self, server: Server, gate: Gate
    ) -> None:
        """Under load: no request with a known key fails, unknown ones get a 503, all recovers."""
        key, new = gate.key(**gate.owners()), gate.key()
        cost = Decimal("0.000000001")
        with Verifier(gate.url, **QUICK) as verifier:
            assert verifier.verify(key).valid
            with load(verifier, key, cost=cost) as result:
                server.stop()
                eventually(lambda: not stranger_is_served(verifier))
                with pytest.raises(UnavailableError, match="away"):
                    verifier.verify(new)
                during = result.served
                eventually(lambda: result.served > during + 200)
                server.start()
                eventually(lambda: stranger_is_served(verifier))
                assert verifier.verify(new).valid
            assert result.fault is None
        gate.close()  # its own connections died with the server
        assert gate.value("SELECT spend FROM teams") == result.served

    def test_a_restart_between_two_requests_goes_unnoticed(
        self, server: Server, gate: Gate
    ) -> None:
        """The connections in the pool are dead; a new one is tried before anybody hears of it."""
        key, new = gate.key(), gate.key()
        with Verifier(gate.url) as verifier:
            assert verifier.verify(key).valid
            server.stop()
            server.start()
            assert verifier.verify(new).valid

    def test_the_grace_ends(self, server: Server, gate: Gate) -> None:
        """Then known keys get a 503 too, and never anything else."""
        key = gate.key()
        with Verifier(gate.url, outage_grace=1.0, **QUICK) as verifier:
            assert verifier.verify(key).valid
            server.stop()
            eventually(lambda: not is_served(verifier, key))
            with pytest.raises(UnavailableError, match="grace"):
                verifier.verify(key)
            server.start()
            eventually(lambda: stranger_is_served(verifier))
            assert verifier.verify(key).valid

    def test_expiry_and_spend_go_on_counting(self, server: Server, gate: Gate) -> None:
        """What is known is enough to refuse a key in an outage."""
        ends, spends = gate.key(duration="3s"), gate.key(max_budget=1)
        with Verifier(gate.url, **QUICK) as verifier:
            assert verifier.verify(ends).valid
            verdict = verifier.verify(spends)
            server.stop()
            eventually(lambda: not stranger_is_served(verifier))
            verdict.record(1)
            assert verifier.verify(spends).reason == "budget_exceeded"
            eventually(lambda: verifier.verify(ends).reason == "expired")
            with pytest.raises(UnavailableError, match="kept"):
                verifier.flush()
            server.start()
        gate.close()  # its own connections died with the server
        assert gate.value("SELECT max(spend) FROM keys") == money.NANO

    def test_a_revocation_during_load_is_seen(self, gate: Gate) -> None:
        """By every thread, within the TTL."""
        key = gate.key()
        with Verifier(gate.url, cache_ttl=1.0) as verifier, load(verifier, key) as result:
            eventually(lambda: result.served > 100)
            gate.execute("UPDATE keys SET deleted_at = now()")
            threading.Event().wait(1.0)
            assert verifier.verify(key).reason == "revoked"
            eventually(lambda: result.fault is not None)
        assert isinstance(result.fault, Verdict)
        assert result.fault.reason == "revoked"


class TestServerThatFallsSilent:
    def test_known_keys_go_on_and_nobody_waits_for_long(self, server: Server, gate: Gate) -> None:
        """Behind a proxy (a fake, on a real socket) that acknowledges everything and answers nothing."""
        key, new = gate.key(), gate.key()
        with (
            Proxy(server.socket) as proxy,
            Verifier(through(proxy, gate), **QUICK) as verifier,
        ):
            assert verifier.verify(key).valid
            with load(verifier, key) as result:
                proxy.silent.set()
                eventually(lambda: not stranger_is_served(verifier))
                begun = time.monotonic()
                with pytest.raises(UnavailableError, match="away"):
                    verifier.verify(new)
                assert time.monotonic() - begun < 0.5
                proxy.silent.clear()
                eventually(lambda: stranger_is_served(verifier))
                assert verifier.verify(new).valid
            assert result.fault is None
            # Once: a database time-out, and the time to connect anew that libpq takes at least.
            assert result.worst < 5.0

    def test_a_commit_whose_answer_is_lost_counts_once(self, server: Server, gate: Gate) -> None:
        """The proxy passes every second commit on and cuts the connection instead of the answer."""
        key = gate.key(**gate.owners())
        with (
            Proxy(server.socket) as proxy,
            Verifier(through(proxy, gate), cache_ttl=3600.0, flush_interval=3600.0) as verifier,
        ):
            for number in range(6):
                verifier.verify(key).record(1)
                if number % 2:
                    proxy.cuts_commits.set()
                    with pytest.raises(UnavailableError, match="kept"):
                        verifier.flush()
                    proxy.cuts_commits.clear()
                verifier.flush()
            assert proxy.cuts == 6  # each time the verifier asked anew, and was cut off again
        assert gate.spends() == [6 * money.NANO] * 4


class TestAnotherTime:
    @pytest.mark.parametrize("hours", [-5, 5])
    def test_the_database_s_clock_decides(self, gate: Gate, hours: int) -> None:
        """A host whose clock is hours off judges no key otherwise: PostgreSQL's time of day is moved here."""
        over, not_yet = gate.key(duration="12h"), gate.key(duration="12h")
        name = make_url(gate.url).database
        for key, offset in ((over, hours - 1), (not_yet, hours + 1)):
            gate.execute(
                f"UPDATE keys SET expires = clock_timestamp() + interval '{offset} hours'"
                f" WHERE id = (SELECT key_id FROM secrets WHERE id = '{key[3:15]}')"
            )
        gate.execute("UPDATE secrets SET not_after = NULL")
        gate.execute("CREATE SCHEMA skewed")
        gate.execute(
            "CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
            f" $$SELECT pg_catalog.clock_timestamp() + interval '{hours} hours'$$"
        )
        gate.execute(f'ALTER DATABASE "{name}" SET search_path = skewed, public, pg_catalog')

        with Verifier(gate.url) as verifier:
            reasons = [verifier.verify(key).reason for key in (over, not_yet, over, not_yet)]
            verifier.verify(not_yet).record(1)

        assert reasons == ["expired", None, "expired", None]
        used = gate.value(
            "SELECT abs(extract(epoch FROM max(last_used_at) - pg_catalog.clock_timestamp()))"
            " FROM keys"
        )
        assert abs(used - abs(hours) * 3600) < 60
