"""Tell which paths of a gateway a key's `allowed_routes` cover.  Pure.

An entry is a path and what lies under it, a beginning that ends in `*`, or the name of a group.
The groups are LiteLLM's, of its releases 1.109.1 and 1.110.2, and one of ours: `model_routes`,
which is what a key reaches that does not say.  They stand in `route_groups.json`; there `@NAME`
takes in another group.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Final

# What a key reaches whose `allowed_routes` are empty; the setting `default_routes` adds to it.
DEFAULT: Final = "model_routes"
# What a client asks in order to use models: it costs nothing, so a spent budget leaves it.
_DISCOVERY: Final = re.compile(
    r"(?:/v1)?/models(?:/[^:]+)?|/v1/model/info|/model/info|/model_group/info|/key/info"
    r"|(?:/v1)?/messages/count_tokens|/utils/token_counter|(?:/openai)?(?:/v1)?/responses/input_tokens"
    r"|(?:/v1(?:beta)?)?/models/[^:]+:countTokens"
)
_PLACEHOLDER: Final = re.compile(r"\{[^}]+\}")


@dataclass(frozen=True, slots=True)
class Group:
    """The members of a group: whole paths, beginnings of paths, and one pattern for all with places."""

    paths: frozenset[str]
    beginnings: tuple[str, ...]
    pattern: re.Pattern[str]

    def covers(self, route: str) -> bool:
        """Tell whether *route* is a member."""
        return (
            route in self.paths
            or route.startswith(self.beginnings)
            or self.pattern.fullmatch(route) is not None
        )


def is_allowed(route: str, allowed: Sequence[str]) -> bool:
    """Tell whether the path *route* is covered by *allowed*; an empty list allows all.

    A path with dot segments, empty ones or escapes is covered by nothing: what it leads to is only
    known to who resolves it.
    """
    if not allowed:
        return True
    if not route.startswith("/") or "%" in route:
        return False
    if route != "/":
        route = route.removesuffix("/")  # as proxies resolve it; LiteLLM's own for MCP ends so
    if {".", "..", ""} & set(route[1:].split("/")):
        return False
    return any(_covers(entry, route) for entry in allowed)


def is_discovery(route: str) -> bool:
    """Tell whether a request to *route* costs nothing and serves to find out what can be used."""
    return _DISCOVERY.fullmatch(route) is not None


def groups() -> dict[str, list[str]]:
    """Return the members of every group, by its name."""
    return {name: sorted(_resolved(name)) for name in sorted(_members())}


def first_unknown(entries: Iterable[str]) -> tuple[str, Sequence[str]] | None:
    """Return the first of *entries* that is neither a path nor a group, with the nearest group names."""
    for entry in entries:
        if not entry.startswith(("/", "*")) and entry not in _members():
            return entry, get_close_matches(entry, _members(), n=3)
    return None


def covers(outer: str, entry: str) -> bool:
    """Tell whether whatever *entry* of a list covers, *outer* covers too, by itself."""
    if entry == outer or outer in ("*", "/*"):
        return True
    inner = list(_resolved(entry)) if entry in _members() else [entry]
    if outer in _members():
        group = set(_resolved(outer))
        beginnings = _group(outer).beginnings
        if entry not in _members():  # a path is also what lies under it
            return entry.startswith(beginnings)
        return all(item in group or item.startswith(beginnings) for item in inner)
    if outer.endswith("*"):
        return all(item.startswith(outer[:-1]) for item in inner)
    below = outer.rstrip("/") + "/"
    return all(item == outer or item.startswith(below) for item in inner)


def _covers(entry: str, route: str) -> bool:
    if entry.endswith("*"):
        return route.startswith(entry[:-1])
    if entry in _members():
        return _group(entry).covers(route)
    return entry in (route, f"{route}/") or route.startswith(entry.rstrip("/") + "/")


@cache
def _members() -> Mapping[str, Sequence[str]]:
    members: Mapping[str, Sequence[str]] = json.loads(
        files("keyctl").joinpath("route_groups.json").read_text("utf-8")
    )
    return members


@cache
def _group(name: str) -> Group:
    entries = set(_resolved(name))
    beginnings = {entry for entry in entries if entry.endswith("*")}
    places = {entry for entry in entries if "{" in entry}
    return Group(
        paths=frozenset(entries - beginnings - places),
        beginnings=tuple(sorted(entry[:-1] for entry in beginnings)),
        pattern=re.compile("|".join(sorted(map(_expression, places))) or "(?!)"),
    )


def _resolved(name: str) -> Iterable[str]:
    for entry in _members()[name]:
        if entry.startswith("@"):
            yield from _resolved(entry[1:])
        else:
            yield entry


def _expression(template: str) -> str:
    """Return the expression for a path with places, in LiteLLM's sense: `{name:path}` may contain slashes."""
    parts, end = [], 0
    for place in _PLACEHOLDER.finditer(template):
        parts.append(re.escape(template[end : place.start()]))
        end = place.end()
        if not place.group().endswith(":path}"):
            parts.append("[^/]+")
        else:
            parts.append("[^:]+" if ":" in template[end:] else ".+")
    return "".join([*parts, re.escape(template[end:])])
