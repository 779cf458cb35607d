"""A database in real time for what runs inside a gateway: keys to present, rows to change, hashes to count."""

import threading
from collections.abc import Container, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, text
from world import Hand

from keyctl import hashing
from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.db.types import UtcDateTime
from keyctl.fields import validate
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Principal, Team, User
from keyctl.requests import GenerateRequest
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.members import MemberService
from keyctl.services.workspace import Workspace


class Gate:
    """Makes keys as keyctl does, and changes rows behind everybody's back."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.url = database_url
        self.database = Database(database_url)
        self.workspace = Workspace(
            database=self.database,
            settings=Settings(bcrypt_cost=4),
            caller=Caller(actor="local:tester@host", role="proxy_admin"),
            runs_folder=folder / "runs",
        )

    def close(self) -> None:
        """Close the database."""
        self.database.engine.dispose()

    def key(self, **request: Any) -> str:
        """Make a key and return its key string."""
        hand = Hand()
        order = Order(request=validate(GenerateRequest, request, what="r", schema="s"))
        GenerateService(self.workspace).generate(order, hand)
        return hand.held

    def owners(self, of: str = "") -> Mapping[str, str]:
        """Make an organization, a team of it and a user, and return what makes a key theirs.

        Several in one database differ by what *of* adds to their names.
        """
        directory = DirectoryService(self.workspace)
        members = MemberService(self.workspace)
        organization, team, user = f"acme{of}", f"web{of}", f"ada{of}"
        made: list[tuple[type[Principal], str, dict[str, Any]]] = [
            (Organization, organization, {}),
            (Team, team, {"organization_id": organization}),
            (User, user, {}),
        ]
        for kind, name, values in made:
            directory.create(kind, name, values)
        members.add(Team, team, user, "user")
        return {"team_id": team, "user_id": user}

    def execute(self, statement: str, **values: Any) -> None:
        """Change the database as only a test may."""
        with self.database.engine.begin() as connection:
            times = [
                bindparam(name, type_=UtcDateTime())
                for name, value in values.items()
                if isinstance(value, datetime)
            ]
            connection.execute(text(statement).bindparams(*times), values)

    def value(self, query: str) -> Any:
        """Return one value of the database."""
        with self.database.engine.begin() as connection:
            return connection.execute(text(query)).scalar()

    def spends(self) -> list[int]:
        """Return what the only key, team, user and organization have spent, in nano-dollars."""
        tables = ("keys", "teams", "users", "organizations")
        return [self.value(f"SELECT sum(spend) FROM {table}") for table in tables]


class Counting:
    """bcrypt that counts, and that waits for the test where it is told to."""

    def __init__(self, *, waits_at: Container[int] = ()) -> None:
        self.count = 0
        self.reached = threading.Semaphore(0)
        self.go_on = threading.Event()
        self._waits_at = waits_at
        self._lock = threading.Lock()

    def __call__(self, digest: str, *, hashed: str) -> bool:
        """Tell whether the hash is of the digest; the first call is number 1."""
        with self._lock:
            self.count += 1
            number = self.count
        self.reached.release()
        if number in self._waits_at and not self.go_on.wait(30):
            raise TimeoutError
        return hashing.digest_matches(digest, hashed=hashed)


def guess_at(key: str, number: int) -> str:
    """Return a string with the public id of *key* and a secret that is not its own, with a valid checksum."""
    from keyctl.keystring import checksum

    body = f"{key[:15]}_{number:043d}"
    return body + checksum(body)
