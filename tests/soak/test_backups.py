"""Fifty backups while ten writers are at work: each is whole."""

import threading
from pathlib import Path

import pytest
from harness import Cli

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("kind", ["sqlite"])]
BACKUPS, WRITERS = 50, 10


def test_backups_during_writes_are_whole(cli: Cli, tmp_path: Path) -> None:
    """Every copy's chain holds, and every key whose command ended before it is in it."""
    stop, made = threading.Event(), list[str]()

    def write() -> None:
        while not stop.is_set():
            done = cli("generate", "-o", "json")
            if done.exit_code == 0:
                made.append(done.json["key_id"])

    writers = [threading.Thread(target=write) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    known: list[list[str]] = []
    try:
        for number in range(BACKUPS):
            known.append(list(made))
            cli("db", "backup", str(tmp_path / f"{number}.db"), check=True)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert len(made) > BACKUPS
    for number in range(BACKUPS):
        copy = Cli(cli.home, f"sqlite:///{tmp_path}/{number}.db")
        copy("audit", "verify", check=True)
        found = {item["key_id"] for item in copy("list", "--all", "-o", "json").json["keys"]}
        assert set(known[number]) <= found
