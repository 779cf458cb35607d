"""Measure things beside each other: alternately, in one session, as ratios of medians.

A lone time says little on a shared machine; what two things take in the same minutes does.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

KEYCTL = str(Path(sys.executable).with_name("keyctl"))


def alternate(subjects: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Call all *subjects* in turn, *rounds* times after a warm-up; return medians in seconds."""
    for subject in subjects.values():
        subject()
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            begun = time.perf_counter()
            subject()
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in times.items()}


def run(
    arguments: Sequence[str], home: Path, **environment: str
) -> Callable[[], "subprocess.CompletedProcess[bytes]"]:
    """Return what runs a command line to its end; a failure is an error."""
    return fed(b"", arguments, home, **environment)


def fed(
    stdin: bytes, arguments: Sequence[str], home: Path, **environment: str
) -> Callable[[], "subprocess.CompletedProcess[bytes]"]:
    """Return what runs a command line that reads *stdin*; a failure is an error."""
    variables = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}

    def once() -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            arguments,
            input=stdin,
            env=variables,
            cwd=home,
            check=True,
            capture_output=True,
            timeout=600,
        )

    return once


def compare(title: str, medians: Mapping[str, float], base: str, limit: float | None) -> None:
    """Print each median in milliseconds and as a multiple of *base*, beside the target."""
    print(title)
    for name, seconds in medians.items():
        ratio = seconds / medians[base]
        note = "" if limit is None or name == base else f"   target {limit} or less"
        print(f"  {name:34} {seconds * 1000:10.2f} ms   {ratio:6.2f}{note}")
