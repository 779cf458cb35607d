"""Say what is wrong with fleet files: one fault for each place, and one error for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from keyctl.errors import MalformedRequestError, Violation

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlace:
    """Where something stands: a file, and the line in it if it is known."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFault:
    """One thing that is wrong in a file: the rule, the place, the path, and what to do about it."""

    rule: str
    place: FaultPlace
    path: str
    message: str

    def violation(self) -> Violation:
        """Return the fault in the form of every other refusal."""
        return Violation(rule=self.rule, field=self.path, message=f"{self.place}: {self.message}")


def malformed(faults: Sequence[FleetFault]) -> MalformedRequestError:
    """Return the error that carries all *faults*, in the order of their places."""
    ordered = sorted(faults, key=lambda fault: (fault.place.file, fault.place.line or 0))
    first = ordered[0]
    where = f"{first.path}: " if first.path else ""
    more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
    return MalformedRequestError(
        f"{first.place}: {where}{first.message}{more}",
        hint="keyctl schema fleet prints what a fleet file may say",
        violations=[fault.violation() for fault in ordered],
    )


def dotted(path: Path) -> str:
    """Return *path* as people write it: names and numbers with dots between them."""
    return ".".join(str(part) for part in path)
