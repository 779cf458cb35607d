"""Ask the custom hook that the configuration names, and nobody else, whether a key may be made.

LiteLLM's `custom_key_generate` contract, failing closed: whatever is not a clear yes is a no.
"""

import asyncio
import importlib
import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from keyctl import durations
from keyctl.causes import cause_in_code
from keyctl.config.settings import Settings
from keyctl.errors import PolicyDeniedError, Violation
from keyctl.policy.facts import Caller
from keyctl.requests import GenerateRequest
from keyctl.sinks.stdout import stdout_reserved

RULE: Final = "hook.custom_key_generate"


def decide(settings: Settings, request: GenerateRequest, caller: Caller) -> None:
    """Call the configured hook with the request (never the key string) and the caller.

    It returns a mapping with `decision` and, optionally, `message`.

    Raises:
        PolicyDeniedError: It says no, says nothing clear, fails, or (a coroutine) takes too long.
    """
    if settings.custom_key_generate is None:
        return
    length = durations.parse_duration(settings.custom_key_generate_timeout)
    limit = timedelta(seconds=length.seconds or 1)
    shown = request.model_copy(update={"key": None})
    try:
        module, _, function = settings.custom_key_generate.partition(":")
        with stdout_reserved():
            hook = getattr(importlib.import_module(module), function)
            answer = hook(shown, caller)
            if inspect.isawaitable(answer):
                answer = asyncio.run(_within(answer, limit))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _denied(f"the hook failed: {cause_in_code(error)}") from error
    if not isinstance(answer, Mapping) or answer.get("decision") is not True:
        said = answer.get("message") if isinstance(answer, Mapping) else None
        raise _denied(str(said) if said else "the hook did not allow it")


async def _within(answer: Any, limit: timedelta) -> Any:
    return await asyncio.wait_for(answer, limit.total_seconds())


def _denied(message: str) -> PolicyDeniedError:
    return PolicyDeniedError(
        f"denied by {RULE}: {message}",
        hint="ask whoever keeps the hook named in the configuration",
        violations=[Violation(rule=RULE, field="", message=message)],
    )
