"""Declare what a rule is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from keyctl.errors import Violation
from keyctl.policy.facts import Facts

Check = Callable[[Facts], Iterable[Violation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: a stable id, what it demands, and the pure function that finds violations.

    `binds` tells whom: rules about the *key* bind everyone, rules about the *caller* are met by
    admins.  Only an `overridable` one can be stepped over by name.
    """

    id: str
    binds: Literal["key", "caller"]
    overridable: bool
    demands: str
    check: Check
