"""Name the route that stands for each operation of a caller, as LiteLLM's `allowed_routes` do.

A caller's key whose routes lack it is refused, whatever its owner's role.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from keyctl import routes
from keyctl.errors import Violation
from keyctl.policy.resolve import ROUTES_OF_TYPE
from keyctl.records import Key

# Where LiteLLM has no such route, the group of all management routes is what is needed.
MANAGEMENT: Final = "management_routes"

# By the action of a refusal, without its `_denied`.
ROUTE_OF: Final[dict[str, str]] = {
    "key_generate": "/key/generate",
    "key_generate_service_account": "/key/service-account/generate",
    "key_update": "/key/update",
    "key_rotate": "/key/regenerate",
    "key_revoke": "/key/regenerate",
    "key_block": "/key/block",
    "key_unblock": "/key/unblock",
    "key_delete": "/key/delete",
    "key_spend": "/key/reset_spend",
    "key_list": "/key/list",
    "key_read": "/key/info",
    "key_import": MANAGEMENT,
    **{
        f"{word}_{verb}": f"/{word}/{route}"
        for word in ("team", "user", "organization")
        for verb, route in (
            ("create", "new"),
            ("update", "update"),
            ("delete", "delete"),
            ("list", "list"),
            ("read", "info"),
        )
    },
    "budget_create": "/budget/new",
    "budget_update": "/budget/update",
    "budget_delete": "/budget/delete",
    **{
        f"{word}_member_{verb}": f"/{word}/member_{route}"
        for word in ("team", "organization")
        for verb, route in (("add", "add"), ("update", "update"), ("remove", "delete"))
    },
}


def route_of(action: str) -> str:
    """Return the route that stands for the operation whose refusal is *action*."""
    return ROUTE_OF.get(action.removesuffix("_denied"), MANAGEMENT)


def routes_of(key: Key) -> Sequence[str]:
    """Return the routes that *key* may call, its type expanded; empty means all."""
    return key.allowed_routes or ROUTES_OF_TYPE.get(key.key_type, [])


def allows(key: Key, route: str) -> bool:
    """Tell whether *key* may be used to call *route*, which is a path or the management group."""
    allowed = routes_of(key)
    if not allowed or MANAGEMENT in allowed:
        return True
    return route != MANAGEMENT and routes.is_allowed(route, allowed)


def are_within(key: Key, bound: Key) -> bool:
    """Tell whether *key* reaches nothing that *bound* does not: no operation, and no route of a gateway.

    A key that names no routes is open to all operations, and to the default routes of a gateway.
    """
    own, reached = routes_of(key), key.reachable_routes()
    if not routes_of(bound):
        return not bound.reachable_routes() or _are_covered(
            reached, [*bound.reachable_routes(), MANAGEMENT, *ROUTES_OF_TYPE["read_only"]]
        )
    return bool(own) and _are_covered(own, routes_of(bound))


def _are_covered(entries: Sequence[str], bounds: Sequence[str]) -> bool:
    return bool(entries) and all(
        any(routes.covers(outer, entry) for outer in bounds) for entry in entries
    )


def may_administer(key: Key) -> bool:
    """Tell whether any operation is open to *key* besides reading what it may do itself.

    LiteLLM's group for model keys holds `/key/info`, so each of them could do that.
    """
    return any(allows(key, route) for action, route in ROUTE_OF.items() if action != "key_read")


def missing_route(key: Key | None, action: str) -> Iterator[Violation]:
    """Yield a violation if *key* may not call what *action* stands for; the local operator has none."""
    route = route_of(action)
    if key is not None and not allows(key, route):
        yield Violation(
            rule="caller.route",
            field="caller",
            message=f"the caller's key may not call {route}",
            bound=list(routes_of(key)),
            value=route,
        )
