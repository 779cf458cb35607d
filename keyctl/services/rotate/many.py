"""Rotate several keys, each to its sink: all judged before the first is rotated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keyctl.durations import Grace
from keyctl.errors import DatabaseError, KeyctlError, UsageError
from keyctl.records import Key
from keyctl.services import denials
from keyctl.services.delivery.sinks import named_sink, own_sink, target_of
from keyctl.services.keys.find import live_key
from keyctl.services.rotate.eligibility import refuse_unfit
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What became of one key: the answer of its rotation, or why there was none."""

    key: Key
    answer: dict[str, Any] | None = None
    error: KeyctlError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyRotationsService:
    """Rotates keys one after the other.  `sink` takes all of them, each key's own by default."""

    workspace: Workspace
    grace: Grace | None = None
    sink: str | None = None
    administers: bool = False

    def judge(self, given: Sequence[str]) -> list[Key]:
        """Return the keys, in the order in which they are named.

        Raises:
            UsageError: A key has no sink that needs no person, or there is no such sink.
            KeyctlError: One does not exist, may not be rotated, or its sink could not take it.
        """
        keys: dict[str, Key] = {}
        database = self.workspace.database
        for item in given:
            with (
                denials.recorded(self.workspace, "key_rotate_denied", "key", item),
                database.read() as connection,
            ):
                caller = self.workspace.caller
                key = live_key(connection, item, caller, lock=False)
                refuse_unfit(
                    self.workspace.settings,
                    connection,
                    caller,
                    key,
                    to_own_sink=self._sink_of(key) == own_sink(self.workspace.settings, key),
                    now=database.now(connection),
                )
            named_sink(self.workspace, self._sink_of(key)).check(target_of(key))
            keys[key.id] = key
        return list(keys.values())

    def rotate(self, keys: Sequence[Key]) -> Iterator[Rotated]:
        """Rotate *keys* and yield what became of each; one that fails stops no other.

        Raises:
            DatabaseError: The database is away.
        """
        service = RotateService(self.workspace)
        for key in keys:
            order = RotateOrder(given=key.id, grace=self.grace, administers=self.administers)
            try:
                answer = service.rotate(order, named_sink(self.workspace, self._sink_of(key)))
            except DatabaseError:
                raise
            except KeyctlError as error:
                yield Rotated(key=key, error=error)
            else:
                yield Rotated(key=key, answer=answer)

    def _sink_of(self, key: Key) -> str:
        name = self.sink or key.sink or self.workspace.settings.default_sink
        if name is None:
            raise UsageError(
                f"key {key.id} has no sink: several keys are not shown on a screen",
                hint="name a sink for all of them with --deliver, or rotate it alone",
            )
        return name
