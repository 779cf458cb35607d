"""Hand a key string to a Python function which the configuration names."""

import importlib
import os
import sys
from datetime import timedelta
from typing import Any, Final

from keyctl import jsontext
from keyctl.causes import cause_in_code
from keyctl.errors import DeliveryError
from keyctl.sinks.base import Parcel, Target
from keyctl.sinks.command import hand_over
from keyctl.sinks.stdout import stdout_reserved

_CHILD: Final = "from keyctl.sinks.python import receive; receive()"
WITHHELD: Final = (
    "KEYCTL_API_KEY",
    "KEYCTL_DATABASE_URL",
    "KEYCTL_DATABASE_URL_FILE",
    "KEYCTL_SOURCE_URL",
    "KEYCTL_SOURCE_URL_FILE",
)
# The status of a process whose function returned.  Not 0: a function that leaves by sys.exit() or
# os._exit() ends with that, and proves nothing.
RETURNED: Final = 113


class PythonSink:
    """Calls ``function(key, answer)``; returning in time is *taken*, whatever it raises *unknown*.

    In a process of its own: a function that hangs could not be ended in this one, and would
    deliver after its claim is gone.
    """

    shows_answer = False

    def __init__(self, name: str, function: str, *, timeout: timedelta) -> None:
        self.name = name
        self.timeout = timeout
        self._path = function

    def check(self, target: Target) -> None:
        """Import the function.

        Raises:
            DeliveryError: It cannot be imported or called.
        """
        try:
            with stdout_reserved():
                function = imported(self._path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise DeliveryError(
                f"sink {self.name}: {self._path} cannot be imported: {cause_in_code(error)}",
                hint="check the sink in the configuration, and that the module is installed",
            ) from error
        if not callable(function):
            raise DeliveryError(
                f"sink {self.name}: {self._path} is no function",
                hint='name one in the configuration, as "module:function"',
            )

    def deliver(self, parcel: Parcel) -> None:
        """Call the function with the key string and the answer as JSON values."""
        document = {"key": parcel.key.reveal(), "answer": parcel.answer}
        hand_over(
            f"sink {self.name}",
            # -P: never from the current folder.
            [sys.executable, "-P", "-c", _CHILD, self._path],
            jsontext.dumps(document).encode(),
            timeout=self.timeout,
            lock=parcel.lock,
            environment={name: value for name, value in os.environ.items() if name not in WITHHELD},
            success=RETURNED,
        )


def receive() -> None:
    """Call the function that the first argument names with what standard input holds; tell that it returned."""
    document = jsontext.loads(sys.stdin.read())
    imported(sys.argv[1])(document["key"], document["answer"])
    sys.exit(RETURNED)


def imported(path: str) -> Any:
    """Return the function that ``module:function`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
