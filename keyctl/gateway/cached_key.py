"""Keep what is known of a key since it was last read, and judge a request by it."""

from math import inf
from typing import Final

from keyctl import lifecycle, routes
from keyctl.gateway.clock import Clock, ticks
from keyctl.gateway.ledger import Tab
from keyctl.gateway.verdict import Verdict
from keyctl.policy import models
from keyctl.records import Presented
from keyctl.services.spent import Spent
from keyctl.services.verify import names_of

# Of so many models, and names no longer than that, it is remembered what a key may and what limits
# it: clients make names up.
_MODELS: Final = 64
_LONGEST: Final = 255


class Entry:
    """A key as it was read at `loaded_at` ticks.  Judging a request by it costs no database access."""

    __slots__ = (
        "_changes_at",
        "_clock",
        "_is_plain",
        "_kind",
        "_of_models",
        "_per_model",
        "_standing",
        "_tab",
        "found",
        "is_refreshing",
        "loaded_at",
    )

    def __init__(
        self,
        found: Presented,
        *,
        loaded_at: float,
        clock: Clock,
        tab: Tab,
        kind: type[Verdict],
    ) -> None:
        self.found = found
        self.loaded_at = loaded_at
        self.is_refreshing = False
        self._clock = clock
        self._tab = tab
        self._is_plain = tab.is_plain
        self._per_model = tab.is_per_model
        self._kind = kind
        self._of_models: dict[str | None, tuple[bool, Tab]] = {}
        self._refresh_base_verdict()

    def age(self) -> float:
        """Return the seconds since the database confirmed what is known."""
        return ticks() - self.loaded_at

    def judge(self, model: str | None, route: str | None) -> Verdict:
        """Return the verdict on a request, now: the first reason of the fixed order wins."""
        now = self._clock.seconds()
        if now >= self._changes_at:
            self._refresh_base_verdict()
        standing = self._standing
        if not standing.valid:
            return standing
        key = self.found.key
        if route is not None and not routes.is_allowed(route, key.gateway_routes()):
            return self._verdict("route_denied")
        may_use, tab = self._of_models.get(model) or self._of_model(model)
        if not may_use:
            return self._verdict("model_denied")
        if route is not None and routes.is_discovery(route):
            return standing
        if self._is_plain:
            return standing
        for purse in tab.purses:
            if purse.left(now) <= 0:
                return self._verdict("budget_exceeded", spent=tab.spent(now)).for_request(tab)
        return standing.for_request(tab)

    def _refresh_base_verdict(self) -> None:
        """Judge by time and state alone, and note when time will change it."""
        found, now = self.found, self._clock.now()
        self._standing = self._verdict(lifecycle.suspension_of(found, now=now))
        ends = (found.key.expires, found.secret.not_after)
        self._changes_at = min(
            (end.timestamp() for end in ends if end is not None and end > now), default=inf
        )

    def _verdict(self, reason: str | None, spent: tuple[Spent, ...] = ()) -> Verdict:
        names = names_of(self.found, now=self._clock.now())
        said = {"valid": reason is None, "reason": reason, "spent": spent, **names}
        return self._kind.about(self.found, self._tab, **said)

    def _meant(self, model: str | None) -> str | None:
        """Return the model that the key's alias stands for, or the model itself."""
        aliases: dict[str, str] = self.found.key.gateway.get("aliases") or {}
        return None if model is None else aliases.get(model, model)

    def _of_model(self, model: str | None) -> tuple[bool, Tab]:
        """Return whether a request may use *model*, and what it is charged to, and remember both."""
        meant = self._meant(model)
        tab = self._tab.of_model(model, meant) if self._per_model else self._tab
        found = (model is None or self._may_use(model), tab)
        if len(self._of_models) < _MODELS and len(model or "") <= _LONGEST:
            self._of_models[model] = found
        return found

    def _may_use(self, model: str) -> bool:
        found = self.found
        return models.may_use(
            self._meant(model) or model,
            found.key,
            team=found.team,
            organization=found.organization,
            user=found.user,
        )
