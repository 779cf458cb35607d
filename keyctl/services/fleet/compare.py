"""Tell how a stored key differs from its description.  Pure but for the settings it is told."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keyctl import views
from keyctl.config.settings import Settings
from keyctl.fleetfile.entries import KeyTemplate
from keyctl.policy import resolve
from keyctl.policy.bounds import Filled
from keyctl.records import Key
from keyctl.services.keys.changed import empty_value

# Counts at creation only: what follows from it, `expires`, is the key's own from then on.
_AT_CREATION: Final = frozenset({"duration"})
# What follows from other fields, or is not for people.
_NOT_SHOWN: Final = frozenset(
    {
        "id",
        "updated_at",
        "updated_by",
        "budget_anchor_at",
        "budget_reset_at",
        "key_rotation_at",
        "sink_suspect_at",
        "managed_by",
        "gateway",
        "confirmed_at",
        "default_routes",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDifference:
    """What has to be set and emptied to make a key what is described."""

    values: Mapping[str, Any]
    cleared: frozenset[str]
    sink: str | None = None

    @property
    def is_nothing(self) -> bool:
        """Tell whether the key is as described."""
        return not (self.values or self.cleared or self.sink)


def difference(key: Key, name: str | None, template: KeyTemplate) -> KeyDifference:
    """Return how *key* differs from *template*, *name* being the alias that it should have."""
    values = {
        field: value
        for field, value in template.values.items()
        if field not in _AT_CREATION and _stored(key, field) != value
    }
    cleared = frozenset(field for field in template.cleared if _stored(key, field) != _empty(field))
    if name is not None and key.key_alias != name:
        values["key_alias"] = name
    deliver = template.entry.deliver
    return KeyDifference(
        values=values, cleared=cleared, sink=deliver if deliver != key.sink else None
    )


def shown_fields(before: Key, after: Key) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, as people know them: dollars, and `deliver`."""
    names = [name for name in after.columns() if name not in _NOT_SHOWN]
    found = {
        "deliver" if name == "sink" else name: (
            views.dollars(name, getattr(before, name)),
            views.dollars(name, getattr(after, name)),
        )
        for name in names
        if getattr(before, name) != getattr(after, name)
    }
    found |= {
        name: (before.gateway.get(name), after.gateway.get(name))
        for name in before.gateway.keys() | after.gateway.keys()
        if before.gateway.get(name) != after.gateway.get(name)
    }
    return dict(sorted(found.items()))


def described_fields(template: KeyTemplate, filled: Iterable[Filled]) -> dict[str, tuple[Any, Any]]:
    """Return what a new key is given: what is described, and what rules and defaults fill in."""
    found = {item.field: (None, item.value) for item in filled}
    found |= {name: (None, views.dollars(name, value)) for name, value in template.values.items()}
    if template.entry.deliver is not None:
        found["deliver"] = (None, template.entry.deliver)
    return dict(sorted(found.items()))


def has_alias_in_place(settings: Settings, sink: str | None) -> bool:
    """Tell whether the place where *sink* keeps a key string depends on the key's alias."""
    configured = settings.sinks.get(sink) if sink is not None else None
    return configured is not None and any("{alias}" in text for text in _texts(configured))


def _texts(configured: Any) -> Iterator[str]:
    for value in configured.model_dump().values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, str))


def _stored(key: Key, field: str) -> Any:
    if field in resolve.GATEWAY_FIELDS:
        return key.gateway.get(field)
    return getattr(key, field)


def _empty(field: str) -> Any:
    return None if field in resolve.GATEWAY_FIELDS else empty_value(field)
