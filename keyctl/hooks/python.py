"""Call hooks that are Python functions, each in a process of its own."""

import os
import sys
from datetime import datetime, timedelta
from typing import Final

from keyctl import jsontext
from keyctl.hooks.base import HookFailedError, Message, as_json
from keyctl.sinks.base import NotTakenError, UnknownError
from keyctl.sinks.command import hand_over
from keyctl.sinks.python import RETURNED, WITHHELD, imported

_CHILD: Final = "from keyctl.hooks.python import receive; receive()"


class PythonHook:
    """Calls ``function(event)``; returning in time means that it arrived.

    In a process of its own, because a function that hangs could not be ended in this one.
    """

    def __init__(self, name: str, function: str) -> None:
        self._name = name
        self._function = function

    def send(self, message: Message, *, sent_at: datetime, timeout: float) -> None:
        """Call the function with the event: `id`, `type`, `timestamp` and `data`."""
        try:
            hand_over(
                self._name,
                # -P: never from the current folder.
                [sys.executable, "-P", "-c", _CHILD, self._function],
                as_json(message),
                timeout=timedelta(seconds=timeout),
                lock=message.lock,
                environment={
                    name: value for name, value in os.environ.items() if name not in WITHHELD
                },
                success=RETURNED,
            )
        except (NotTakenError, UnknownError) as error:
            raise HookFailedError(str(error)) from error


def receive() -> None:
    """Call the function that the first argument names with the event on standard input; tell that it returned."""
    imported(sys.argv[1])(jsontext.loads(sys.stdin.read()))
    sys.exit(RETURNED)
