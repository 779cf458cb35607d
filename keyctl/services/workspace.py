"""Hold what every service works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from keyctl import hashing, keystring
from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.errors import UnreadableRowError
from keyctl.keystring import KeyString
from keyctl.policy.facts import Caller
from keyctl.sinks.logins import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A database, the settings, who acts, and where runs show that they are alive.

    `outgoing` are the ids of events that this process put into the outbox, `warnings` what a
    person is told at the end, `unreadable` the rows that were passed over for that.
    """

    database: Database
    settings: Settings
    caller: Caller
    runs_folder: Path
    mint: Callable[[], KeyString] = keystring.mint
    hash: Callable[..., str] = hashing.hash_key
    outgoing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[UnreadableRowError] = field(default_factory=list)
    tokens: Tokens = field(default_factory=Tokens)

    def close(self) -> None:
        """End what the run has begun elsewhere: its logins at secret managers."""
        self.tokens.end()
