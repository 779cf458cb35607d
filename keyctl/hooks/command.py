"""Run hooks that are commands, each with one event on its standard input."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from keyctl.hooks.base import HookFailedError, Message, as_json
from keyctl.sinks.base import NotTakenError, UnknownError
from keyctl.sinks.command import fault_of_program, hand_over, pruned_environment


class CommandHook:
    """Runs *argv*, never by a shell; exit 0 in time means that the event arrived."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self._name = name
        self._argv = argv

    def send(self, message: Message, *, sent_at: datetime, timeout: float) -> None:
        """Run the command with the event as one line of JSON on its standard input."""
        if fault := fault_of_program(self._argv[0]):
            raise HookFailedError(f"{self._name}: {'; '.join(fault)}")
        try:
            hand_over(
                self._name,
                self._argv,
                as_json(message) + b"\n",
                timeout=timedelta(seconds=timeout),
                lock=message.lock,
                environment=pruned_environment(),
            )
        except (NotTakenError, UnknownError) as error:
            raise HookFailedError(str(error)) from error
