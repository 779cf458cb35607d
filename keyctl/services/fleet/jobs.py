"""Make the jobs of a plan's new keys when they are asked for: a sink holds on to its last key."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from keyctl.errors import KeyctlError, UsageError
from keyctl.services.authorize.new_keys import NewKey
from keyctl.services.delivery.sinks import named_sink
from keyctl.services.fleet.model import Change, NewKeyChange
from keyctl.services.issue.generate_each import Job
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink, Target

_TEMPLATES: Final = 1000


class NewKeyJobs(Sequence[Job]):
    """A job for each new key, made anew each time: a hundred thousand are never there at once."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        made: Sequence[NewKeyChange],
        sink_of: Callable[[Target], Sink] | None,
    ) -> None:
        self._workspace = workspace
        self._made = made
        self._sink_of = sink_of
        # Keys of one template share what is wanted: its facts are gathered once.
        self._wanted: dict[int, NewKey] = {}

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._job(change) for change in self._made[place]]
        return self._job(self._made[place])

    def _job(self, change: NewKeyChange) -> Job:
        template = change.template
        wanted = self._wanted.get(id(template))
        if wanted is None:
            if len(self._wanted) == _TEMPLATES:
                self._wanted.clear()
            wanted = NewKey(values=template.values, cleared=template.cleared)
            self._wanted[id(template)] = wanted
        name = template.entry.deliver
        sink = named_sink(self._workspace, name) if name is not None else None
        if sink is None and self._sink_of is not None:
            sink = self._sink_of(change.target)
        if sink is None:
            raise no_sink(change)
        return Job(
            wanted=wanted,
            alias=change.target.alias,
            sink=sink,
            keeps_sink=name is not None,
            managed_by=template.fleet,
            administers=bool(template.entry.administers),
            key_id=change.target.key_id or "",
            target=change.target,
        )


def no_sink(change: Change) -> KeyctlError:
    """Return the error that says of a new key that nothing takes its key string."""
    return UsageError(
        f"keys.{change.object_id}: a new key needs deliver",
        hint="name a sink of the configuration there, or give --out-dir",
    )
