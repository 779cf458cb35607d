"""Remember the requests that are under way, and what each has reserved, until their cost is told."""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import uuid4

from keyctl.errors import UnavailableError
from keyctl.gateway.litellm.prices import Estimate
from keyctl.gateway.verdict import AsyncVerdict

log = logging.getLogger("keyctl.gateway")

NOTHING: Final = Estimate(Decimal(0))
# A request whose cost nobody has told by then is charged as it was reserved: its client has gone
# away, or the proxy has forgotten it.  What is told later is charged beyond that.
_TOLD_WITHIN: Final = 900.0
# Of so many requests it is remembered what was charged so.
_REMEMBERED: Final = 10_000


@dataclass(slots=True, kw_only=True)
class Request:
    """One request: what it is charged to, and what it concerns."""

    verdict: AsyncVerdict
    model: str | None
    provider: str
    began_at: float
    reserved: Estimate = NOTHING
    estimate: int | None = None  # of a batch of the file that is uploaded, in nano-dollars
    object_id: str | None = None  # the batch or background answer that it asks for, or has begun
    maker: str | None = None  # the key that made what it asks for
    places: tuple[str, ...] = ()  # whose parallel requests it counts among
    charged: Estimate = NOTHING  # when its time was over

    def settle(self, cost: Estimate) -> None:
        """Charge *cost*, less what was charged before, and give back what was reserved."""
        more = Estimate(
            max(Decimal(0), cost.cost - self.charged.cost),
            max(0, cost.tokens - self.charged.tokens),
        )
        try:
            self.verdict.record(more.cost, tokens=more.tokens)
        except (ValueError, UnavailableError) as error:
            log.error("key %s was not charged: %s", self.verdict.key_id, error)  # noqa: TRY400  # no bug, so no traceback
            return
        self.charged = cost


class UnderWay:
    """The requests of this process, by a name that LiteLLM carries from one of its hooks to the next.

    All of them on one event loop, so nothing is locked.
    """

    def __init__(self) -> None:
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._late: OrderedDict[str, Request] = OrderedDict()
        self._parallel: Counter[str] = Counter()

    def enter(self, request: Request, limits: Mapping[str, int]) -> bool:
        """Count *request* among those of these owners that run at once; False where one has as many as it may."""
        self._end_overdue()
        if any(self._parallel[place] >= limit for place, limit in limits.items()):
            return False
        self._parallel.update(limits.keys())
        request.places = tuple(limits)
        return True

    def leave(self, request: Request) -> None:
        """Count *request* no longer: its answer is given."""
        for place in request.places:
            self._parallel[place] -= 1
            if self._parallel[place] <= 0:
                del self._parallel[place]
        request.places = ()

    def begin(self, request: Request) -> str:
        """Remember *request*, and return its name."""
        self._end_overdue()
        name = uuid4().hex
        self._requests[name] = request
        return name

    def find(self, name: str | None) -> Request | None:
        """Return the request of this name while it is under way."""
        return None if name is None else self._requests.get(name) or self._late.get(name)

    def end(self, name: str | None) -> Request | None:
        """Return the request of this name, and forget it."""
        if name is None:
            return None
        request = self._requests.pop(name, None) or self._late.pop(name, None)
        if request is not None:
            self.leave(request)
        return request

    def _end_overdue(self) -> None:
        now = time.monotonic()
        while self._requests:
            name, request = next(
                iter(self._requests.items())
            )  # they are in the order they began in
            if now - request.began_at < _TOLD_WITHIN:
                break
            self._late[name] = self._requests.pop(name)
            self.leave(request)
            if len(self._late) > _REMEMBERED:
                self._late.popitem(last=False)
            if request.reserved != NOTHING:
                request.settle(request.reserved)
