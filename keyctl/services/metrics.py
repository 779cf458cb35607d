"""Tell a monitoring system how the keys are, in OpenMetrics' text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

from keyctl.db.queries import audit, metrics
from keyctl.db.queries.metered import metered
from keyctl.services.callers import require_overseer
from keyctl.services.repair import CheckService
from keyctl.services.workspace import Workspace

if TYPE_CHECKING:
    from prometheus_client.metrics_core import GaugeMetricFamily

_WITHIN: Final = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
# Hooks of which the outbox holds nothing are shown too, so that an alert can tell 0 from absent.
_STATES: Final = ("open", "failed", "delivered")
_FINDINGS: Final = "What keyctl db check lists: keys and secrets that a crash left behind."


@dataclass(frozen=True, slots=True)
class MetricsService:
    """Reads all numbers in one snapshot."""

    workspace: Workspace

    def text(self) -> str:
        """Return every metric as OpenMetrics text."""
        from prometheus_client import CollectorRegistry  # noqa: PLC0415  # for this command only
        from prometheus_client.openmetrics.exposition import generate_latest  # noqa: PLC0415

        registry = CollectorRegistry()
        registry.register(_Collected(self._read()))
        return str(generate_latest(registry).decode())  # type: ignore[no-untyped-call]

    def samples(self) -> list[dict[str, Any]]:
        """Return every number with its name and labels."""
        return [
            {"name": sample.name, "labels": sample.labels, "value": sample.value}
            for family in self._read()
            for sample in family.samples
        ]

    def _read(self) -> "list[GaugeMetricFamily]":
        require_overseer(self.workspace, "the metrics", "database")
        findings = len(CheckService(self.workspace).check()["left"])
        with self.workspace.database.read(snapshot=True) as connection:
            return [*self._families(connection), _one("check_findings", _FINDINGS, findings)]

    def _families(self, connection: Connection) -> "Iterator[GaugeMetricFamily]":
        now = self.workspace.database.now(connection)
        yield from _of_keys(connection, now)
        yield from _of_rotations(connection, now)
        yield _many(
            "budget_used_ratio",
            "How much of a budget is spent: 1 is all of it; windows, models, members, tiers are named.",
            ("object_type", "object_id", "budget"),
            chain(
                (
                    ((used.object_type, used.object_id, ""), used.spend / used.max_budget)
                    for used in metrics.budgets_used(connection, now=now)
                ),
                (
                    (
                        (item.object_type, item.object_id, item.budget.name.meter),
                        item.budget.spend / item.budget.limit,
                    )
                    for item in metered(connection, now=now)
                ),
            ),
        )
        yield self._of_outbox(connection)
        yield _one(
            "audit_head_seq",
            "The number of the newest audit event.",
            audit.find_head(connection).seq,
        )
        yield _one(
            "collected_timestamp_seconds",
            "When these numbers were read, in seconds since 1970.",
            now.timestamp(),
        )

    def _of_outbox(self, connection: Connection) -> "GaugeMetricFamily":
        counts = metrics.count_outbox(connection)
        hooks = {f"hooks.{name}" for name in self.workspace.settings.hooks} | {
            hook for hook, _ in counts
        }
        return _many(
            "outbox_events",
            "Events in the outbox by hook; failed ones are tried again.",
            ("hook", "state"),
            (
                ((hook, state), counts.get((hook, state), 0))
                for hook in sorted(hooks)
                for state in _STATES
            ),
        )


def _of_keys(connection: Connection, now: datetime) -> "Iterator[GaugeMetricFamily]":
    yield _many(
        "keys",
        "Keys by state and team; the label team is empty for keys without a team.",
        ("state", "team"),
        metrics.count_keys(connection, now=now).items(),
    )
    yield _many(
        "keys_expiring",
        "Live keys that expire within this time.",
        ("within",),
        (
            ((name,), metrics.count_expiring(connection, now=now, until=now + length))
            for name, length in _WITHIN.items()
        ),
    )


def _of_rotations(connection: Connection, now: datetime) -> "Iterator[GaugeMetricFamily]":
    yield _one(
        "rotation_overdue_keys",
        "Keys whose rotation is due and that are not rotated yet.",
        metrics.count_overdue(connection, now=now),
    )
    yield _one(
        "rotation_failed_keys",
        "Keys with a secret that a rotation left behind, or a sink that may hold an older one.",
        metrics.count_failed_rotations(connection, now=now),
    )


class _Collected:
    """What the library asks for its numbers."""

    def __init__(self, families: "Sequence[GaugeMetricFamily]") -> None:
        self._families = families

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        """Yield them."""
        yield from self._families


def _one(name: str, text: str, value: float) -> "GaugeMetricFamily":
    from prometheus_client.metrics_core import GaugeMetricFamily  # noqa: PLC0415

    return GaugeMetricFamily(f"keyctl_{name}", text, value=value)


def _many(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Iterable[tuple[Sequence[str], float]],
) -> "GaugeMetricFamily":
    from prometheus_client.metrics_core import GaugeMetricFamily  # noqa: PLC0415

    family = GaugeMetricFamily(f"keyctl_{name}", text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family
