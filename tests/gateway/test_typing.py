"""What a type checker says of programs that use keyctl.gateway, the only public library."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="comes with the extra dev; .ci/run has it")

GOOD = """
from datetime import datetime
from decimal import Decimal
from typing import assert_type

from keyctl.gateway import AsyncVerifier, Found, UnavailableError, Verdict, Verifier


def serve(verifier: Verifier, presented: str) -> int:
    try:
        verdict = verifier.verify(presented, model="gpt-4o", route="/v1/chat/completions")
    except UnavailableError:
        return 503
    assert_type(verdict, Verdict)
    assert_type(verdict.valid, bool)
    assert_type(verdict.reason, str | None)
    assert_type(verdict.key_id, str | None)
    assert_type(verdict.expires, datetime | None)
    assert_type(verdict.found, Found | None)
    if verdict.valid and verdict.reserve(Decimal("0.01")):
        verdict.record(Decimal("0.0042"))
        return 200
    verdict.release()
    return 401


async def serve_on_loop(verifier: AsyncVerifier, presented: str) -> bool:
    verdict = await verifier.verify(presented)
    return verdict.valid and await verdict.reserve(0.01)


def owner(verdict: Verdict) -> str | None:
    found = verdict.found
    return found.team.id if found is not None and found.team is not None else None
"""
BAD = """
from keyctl.gateway import AsyncVerifier, Verifier

with Verifier("sqlite:///keyctl.db") as verifier:
    verifier.verify(b"sk-bytes")
    verdict = verifier.verify("sk-x")
    verdict.valid = True
    verdict.record("1")
    if verdict.found:
        verdict.found.secret


async def forget(verifier: AsyncVerifier) -> bool:
    return (await verifier.verify("sk-x")).reserve(1)
"""


def checked(folder: Path, program: str) -> list[str]:
    """Return what mypy says of *program*, which lies outside of keyctl: each line's number and code."""
    path = folder / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-error-summary",
            "--config-file=",
            path.name,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    return [
        f"{line.split(':')[1]} {line.rpartition('[')[2].rstrip(']')}"
        for line in done.stdout.splitlines()
        if ": error:" in line
    ]


def test_the_package_says_that_it_is_typed() -> None:
    """Without the marker a type checker looks at nothing of it."""
    assert files("keyctl").joinpath("py.typed").is_file()


def test_a_program_that_uses_all_of_it_is_well_typed(tmp_path: Path) -> None:
    """What the manual shows passes mypy's strictest mode."""
    assert checked(tmp_path, GOOD) == []


def test_mistakes_are_found(tmp_path: Path) -> None:
    """Bytes for a key, a changed verdict, text for money, the secret, a reservation not awaited."""
    assert checked(tmp_path, BAD) == [
        "5 arg-type",
        "7 misc",
        "8 arg-type",
        "10 attr-defined",
        "14 return-value",
    ]
