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
    admins, rules about the *secret* in hand bind whoever acts with a key, admins too.  Only an
    `overridable` one can be stepped over by name.  One that `closes` keeps callers from ending up
    with more than they were given: without it they could.  For one that binds callers and closes
    nothing, `guards` says what it is there for.
    """

    id: str
    binds: Literal["key", "caller", "secret"]
    overridable: bool
    demands: str
    check: Check
    closes: bool = False
    guards: str = ""
