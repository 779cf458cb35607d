"""The sink that hands a key string to a Python function which the configuration names."""

import importlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from keyctl.errors import DeliveryError
from keyctl.sinks.base import Parcel, Target, UnknownError


class PythonSink:
    """Calls ``function(key, answer)``; returning is *taken*, whatever it raises is *unknown*."""

    shows_answer = False

    def __init__(self, name: str, function: str, *, timeout: timedelta) -> None:
        self.name = name
        self.timeout = timeout
        self._path = function
        self._function: Callable[[str, dict[str, Any]], Any] | None = None

    def check(self, target: Target) -> None:
        """Import the function.

        Raises:
            DeliveryError: It cannot be imported or called.
        """
        module, _, name = self._path.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except Exception as error:
            raise DeliveryError(
                f"sink {self.name}: {self._path} cannot be imported: {type(error).__name__}",
                hint="check the sink in the configuration, and that the module is installed",
            ) from error
        if not callable(function):
            raise DeliveryError(f"sink {self.name}: {self._path} is no function")
        self._function = function

    def deliver(self, parcel: Parcel) -> None:
        """Call the function with the key string and a copy of the answer."""
        if self._function is None:
            raise UnknownError(f"sink {self.name} was not checked")
        try:
            self._function(parcel.key.reveal(), dict(parcel.answer))
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody knows what it did
            # Only its kind: what it says may hold the key.
            raise UnknownError(f"sink {self.name} failed: {type(error).__name__}") from None
