"""The services with one secret manager behind them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from places import Place

from keyctl.config import file
from keyctl.db.queries import secrets_of
from keyctl.errors import DeliveryError, KeyctlError
from keyctl.requests import GenerateRequest
from keyctl.services.delivery.sinks import named_sink, target_of
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.find import find
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.verify import Verdict, verify
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Store


@dataclass(slots=True)
class Bench:
    """The services with a sink ``store``, and the secret manager behind it."""

    workspace: Workspace
    place: Place
    folder: Path

    def configure(self, *lines: str) -> None:
        """Configure the sink anew, with *lines* more."""
        path = self.folder / "config.toml"
        path.write_text(self.place.sink(*lines))
        path.chmod(0o600)
        self.workspace = replace(self.workspace, settings=file.load(path))

    def generate(self, alias: str = "ci", **fields: Any) -> str:
        """Make a key that the store takes; return its id."""
        order = Order(request=GenerateRequest(key_alias=alias, **fields), sink="store")
        made = GenerateService(self.workspace).generate(order, self.sink())
        return str(made.answer["key_id"])

    def rotate(self) -> None:
        """Rotate the key ``ci``."""
        RotateService(self.workspace).rotate(RotateOrder(given="ci"), self.sink())

    def failed(self, step: Any) -> KeyctlError:
        """Return the error with which *step* fails to deliver."""
        with pytest.raises(DeliveryError) as caught:
            step()
        return caught.value

    def delete(self, given: str) -> None:
        """Delete a key; its removal from the store is another step."""
        [ended] = EndingService(self.workspace).delete([given])
        assert ended.result == "deleted"

    def remove(self, key_id: str) -> bool:
        """Remove what is stored of a key, as the database remembers it."""
        with self.workspace.database.read() as connection:
            target = target_of(find(connection, key_id))
        sink = self.sink()
        assert isinstance(sink, Store)
        return sink.remove(target)

    def sink(self) -> Any:
        """Return the sink as a run has it."""
        return named_sink(self.workspace, "store")

    def verdict(self) -> Verdict:
        """Return what the key that the store holds now is worth."""
        return verify(self.workspace.database, self.place.held("ci")[0])

    def states(self, key_id: str | None = None) -> list[str]:
        """Return the states of a key's secrets, or of all there are, in order."""
        with self.workspace.database.read() as connection:
            every = connection.exec_driver_sql("SELECT id FROM keys").scalars().all()
            wanted = every if key_id is None else [key_id]
            return sorted(secret.state for secret in secrets_of(connection, *wanted))
