"""People who act with keys that they hold, as the program makes them act, without a process."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from world import Hand, World

from keyctl.errors import KeyctlError, PolicyDeniedError
from keyctl.fields import validate
from keyctl.requests import GenerateRequest
from keyctl.services import identity
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.read import KeyService
from keyctl.services.keys.update import ChangeService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.workspace import Workspace


class Into(Hand):
    """A sink of the configuration, which keeps what it is given."""

    shows_answer = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Holder:
    """Whoever holds a key string, and what they do with it."""

    def __init__(self, workspace: Workspace, key_string: str | None) -> None:
        self._workspace = workspace
        self.key_string = key_string

    @property
    def workspace(self) -> Workspace:
        """Return what services work with when the holder acts; the local operator holds no key."""
        if self.key_string is None:
            return self._workspace
        unknown = replace(self._workspace, caller=identity.stranger(changed_by=None))
        return replace(unknown, caller=identity.authenticated(unknown, self.key_string))

    def generate(
        self, request: Mapping[str, Any], *, service_account: bool = False, **order: Any
    ) -> "Held":
        """Make a key and hold it."""
        body = validate(GenerateRequest, request, what="the request", schema="generate-request")
        hand = Hand()
        wanted = Order(request=body, service_account=service_account, **order)
        answer = GenerateService(self.workspace).generate(wanted, hand).answer
        return Held(self._workspace, hand.held, answer)

    def rotate(self, given: str, sink: Any = None, **order: Any) -> "Held":
        """Rotate a key, by default into the holder's own hand."""
        hand = sink or Hand()
        answer = RotateService(self.workspace).rotate(RotateOrder(given=given, **order), hand)
        return Held(self._workspace, getattr(hand, "held", ""), answer)

    def update(self, given: str, patch: Mapping[str, Any], **order: Any) -> dict[str, Any]:
        """Change a key."""
        return ChangeService(self.workspace).update(given, patch, **order)

    def end(self, verb: str, given: str) -> str:
        """Block, unblock or delete a key; return what became of it."""
        service = EndingService(self.workspace)
        if verb == "delete":
            (ended,) = service.delete([given])
        else:
            (ended,) = service.block([given], blocked=verb == "block")
        if ended.error is not None:
            raise ended.error
        return ended.result

    def info(self, given: str) -> dict[str, Any]:
        """Return what the holder may see of a key."""
        return KeyService(self.workspace).info(given)


class Held(Holder):
    """A key string that somebody holds, and the answer that came with it."""

    def __init__(self, workspace: Workspace, key_string: str, answer: dict[str, Any]) -> None:
        super().__init__(workspace, key_string)
        self.answer = answer

    @property
    def key_id(self) -> str:
        """Return the id of the key."""
        return str(self.answer["key_id"])


def operator(world: World) -> Holder:
    """Return the local operator."""
    return Holder(world.workspace, None)


def rules_of(error: KeyctlError) -> set[str]:
    """Return the rules that a refusal names."""
    return {item.rule for item in error.violations}


def refused(action: Any, *arguments: Any, **options: Any) -> set[str]:
    """Return the rules by which *action* is refused.

    Raises:
        AssertionError: It is not.
    """
    try:
        action(*arguments, **options)
    except PolicyDeniedError as error:
        return rules_of(error)
    except KeyctlError as error:
        return rules_of(error) or {error.code}
    raise AssertionError("it was allowed")
