"""Settle what must be settled before anything else is imported, then run the command line."""

import gc
import os
import sys

from keyctl import __version__


def main() -> None:
    """Run keyctl on the process's arguments and exit with its status."""
    closed = _fill_descriptors()
    if sys.argv[1:] in (["--version"], ["-V"]):
        # Answered before Typer is imported.
        sys.stdout.write(f"keyctl {__version__}\n")
        sys.exit(0)
    _harden()
    gc.disable()  # a tenth of a short command; switched on again when its imports are done
    from keyctl.cli.app import run

    sys.exit(run(sys.argv[1:], closed=closed))


def _fill_descriptors() -> frozenset[int]:
    """Point closed descriptors 0 to 2 at /dev/null and return which they were.

    Otherwise the next file or socket that is opened gets the number, and a key string meant for
    stdout would be written into it.
    """
    closed = set()
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            os.open(os.devnull, os.O_RDWR)
    # Python gives a closed descriptor None for its stream; the streams stay open to the end.
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115  # open to the end
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # open to the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open to the end
    return frozenset(closed)


def _harden() -> None:
    """Keep key strings out of core files, other users' reach, and tracebacks."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    sys.excepthook = _report_bug


def _report_bug(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
    """Print the traceback of a bug, without locals and with everything key-like redacted."""
    import traceback

    from keyctl.keystring import redact

    sys.stderr.write(redact("".join(traceback.format_exception(error))))
    sys.stderr.write("error: this is a bug in keyctl; please report it with the lines above\n")
