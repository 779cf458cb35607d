"""Read the line that stands in a file which an option or a variable names."""

from pathlib import Path

from keyctl.errors import UsageError


def read_line(path: Path, *, what: str) -> str:
    """Return what stands in the file that *what* names.

    Raises:
        UsageError: It cannot be read, or is empty.
    """
    # The path is not repeated: whoever mistook the variable for another has put a password there.
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(
            f"{what}: the file that it names cannot be read: {why}",
            hint="give the path of a file, and check its mode",
        ) from error
    if not text:
        raise UsageError(f"{what}: the file that it names is empty", hint="check how it is written")
    return text
