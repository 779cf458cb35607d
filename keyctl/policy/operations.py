"""Name the route that stands for each operation of a caller, as LiteLLM's `allowed_routes` do.

A caller's key whose routes lack it is refused, whatever its owner's role.
"""

from collections.abc import Sequence
from typing import Final

from keyctl import routes
from keyctl.policy.resolve import ROUTES_OF_TYPE
from keyctl.records import Key

# Where LiteLLM has no such route, the group of all management routes is what is needed.
MANAGEMENT: Final = "management_routes"

ROUTE_OF: Final[dict[str, str]] = {
    "generate": "/key/generate",
    "generate --service-account": "/key/service-account/generate",
    "update": "/key/update",
    "rotate": "/key/regenerate",
    "revoke": "/key/regenerate",
    "block": "/key/block",
    "unblock": "/key/unblock",
    "delete": "/key/delete",
    "spend": "/key/reset_spend",
    "list": "/key/list",
    "info": "/key/info",
    "import": MANAGEMENT,
    **{
        f"{command} {verb}": f"/{word}/{route}"
        for command, word in (("team", "team"), ("user", "user"), ("org", "organization"))
        for verb, route in (
            ("create", "new"),
            ("update", "update"),
            ("delete", "delete"),
            ("list", "list"),
            ("info", "info"),
        )
    },
    "team add-member": "/team/member_add",
    "team update-member": "/team/member_update",
    "team remove-member": "/team/member_delete",
    "org add-member": "/organization/member_add",
    "org remove-member": "/organization/member_delete",
    "audit": MANAGEMENT,
    "events": MANAGEMENT,
    "budget reset": MANAGEMENT,
    "db": MANAGEMENT,
    "config": MANAGEMENT,
}


def routes_of(key: Key) -> Sequence[str]:
    """Return the routes that *key* may call, its type expanded; empty means all."""
    return key.allowed_routes or ROUTES_OF_TYPE.get(key.key_type, [])


def allows(key: Key, route: str) -> bool:
    """Tell whether *key* may be used to call *route*, which is a path or the management group."""
    allowed = routes_of(key)
    if not allowed or MANAGEMENT in allowed:
        return True
    return route != MANAGEMENT and routes.is_allowed(route, allowed)


def may_administer(key: Key) -> bool:
    """Tell whether any operation is open to *key* at all."""
    return any(allows(key, route) for route in ROUTE_OF.values())
