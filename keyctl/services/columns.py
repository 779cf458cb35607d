"""Refuse what many rows of a list have in common once: columns that no field is named after."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from keyctl.errors import MalformedRequestError, Violation
from keyctl.fields import UNSUPPORTED, unknown_field

Bodies = Sequence[tuple[str, Mapping[str, Any]]]
# So many names are said in the one line; the violations have all.
_SAID: Final = 5


def unknown_columns(bodies: Bodies, known: Collection[str]) -> list[Violation]:
    """Return a violation for each name that more than one row has, or each, and that is none of *known*."""
    counts = Counter(
        name
        for _, body in bodies
        for name, value in body.items()
        if value is not None and name not in known and name not in UNSUPPORTED
    )
    source = source_of(bodies)
    found = []
    for name, count in counts.items():
        if count > 1 or count == len(bodies):
            fault = unknown_field(name, set(known))
            message = f"{source}: {fault.message}"
            found.append(Violation(rule=fault.rule, field=fault.field, message=message))
    return found


def source_of(bodies: Bodies) -> str:
    """Return the name of the list that the rows come from."""
    return bodies[0][0].rpartition(":")[0] if bodies else "the list"


def malformed(
    bodies: Bodies, columns: Sequence[Violation], faults: Sequence[Violation], *, hint: str
) -> MalformedRequestError:
    """Return the error for a list with these unknown columns, and these faults in its rows."""
    found = [*columns, *faults]
    if columns:
        are = "column is" if len(columns) == 1 else "columns are"
        names = ", ".join(item.field for item in columns[:_SAID])
        more = ", …" if len(columns) > _SAID else ""
        said = f"{source_of(bodies)}: {len(columns)} {are} unknown: {names}{more}"
        left = len(faults)
    else:
        said, left = f"the list is malformed: {faults[0].message}", len(faults) - 1
    error = MalformedRequestError(
        said + (f" (and {left} more)" if left else ""), hint=hint, violations=found
    )
    error.is_of_rows = True
    return error
