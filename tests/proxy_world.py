"""A proxy whose adapter lifts the limits of some keys, and a hand on its database."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from gate import Gate
from stand import Stand

CHAT = "/v1/chat/completions"
TABLES = {
    "key": "keys",
    "member": "team_members",
    "team": "teams",
    "user": "users",
    "organization": "organizations",
}
# Keeps the tags of each request as the proxy tells them to whoever counts spend.
TOLD = """
from litellm.integrations.custom_logger import CustomLogger

class Told(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        told = kwargs["standard_logging_object"]
        with open("told.jsonl", "a") as file:
            print(told["metadata"]["user_api_key_alias"], *told["request_tags"], file=file, flush=True)

logger = Told()
"""


class World:
    """The proxy, a provider behind it, and what makes keys and changes rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "proxy"
        self.folder.mkdir()
        for name, text in (
            ("lifted", Path(__file__).with_name("lifted.py").read_text()),
            ("told", TOLD),
        ):
            (self.folder / f"{name}.py").write_text(text)
        self.stand = Stand(
            folder,
            custom_auth="lifted.user_api_key_auth",
            settings={"callbacks": ["keyctl.gateway.litellm.logger", "told.logger"]},
            of_provider=lambda provider: {
                "general": {
                    "pass_through_endpoints": [
                        {"path": f"/mine{path}", "target": f"{provider}/files", "auth": True}
                        for path in ("", "/secret")
                    ]
                },
                "servers": {
                    "tools": {"url": f"{provider}/mcp", "transport": "http", "allow_all_keys": True}
                },
            },
        )
        self.stand.provider.fails_model = "broken"
        self.gate = Gate(f"sqlite:///{folder}/keyctl.db", folder)
        self.client = httpx.Client(timeout=60)

    def close(self) -> None:
        """End everything."""
        self.client.close()
        self.gate.close()
        self.stand.close()

    def key(self, alias: str, **request: Any) -> str:
        """Make a key, with owners of its own."""
        return self.gate.key(key_alias=alias, **self.gate.owners(alias), **request)

    def set(self, alias: str, owner: str, **values: Any) -> None:
        """Set columns of the key or of one of its owners."""
        where = {
            "key": f"key_alias = '{alias}'",
            "member": f"team_id = 'web{alias}'",
            "team": f"id = 'web{alias}'",
            "user": f"id = 'ada{alias}'",
            "organization": f"id = 'acme{alias}'",
        }
        columns = ", ".join(f"{name} = :{name}" for name in values)
        self.gate.execute(f"UPDATE {TABLES[owner]} SET {columns} WHERE {where[owner]}", **values)

    def post(
        self, key: str, path: str = CHAT, *, body: Mapping[str, Any] | None = None, **more: Any
    ) -> httpx.Response:
        """Ask for a completion, or for something else."""
        asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **more}
        accepted = "application/json, text/event-stream"
        return self.client.post(
            f"{self.stand.running.url}{path}",
            json=asked if body is None else body,
            headers={"authorization": f"Bearer {key}", "accept": accepted},
        )
