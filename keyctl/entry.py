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
    if os.getpid() == 1:
        _become_init()
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


def _become_init() -> None:
    """Go on in a child process, and stay behind as a container's first process.

    The kernel keeps signals from process 1 unless it asks for them, and Python sees one that it
    asked for only after a wait for a lock.  The child ends at once, as any program does.
    """
    import signal

    asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
        return
    for number in asked:
        signal.signal(number, lambda got, _frame: os.kill(child, got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
    while True:
        ended, status = os.wait()  # orphans of the container too
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _harden() -> None:
    """Keep key strings out of core files, other users' reach, and tracebacks."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A plugin of pydantic would see the key strings that requests hold; and looking for some reads
    # the metadata of all that is installed.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    os.umask(0o077)
    sys.excepthook = _report_bug


def _report_bug(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
    """Print the traceback of a bug, without locals and with everything key-like redacted."""
    import traceback

    from keyctl.keystring import redact

    sys.stderr.write(redact("".join(traceback.format_exception(error))))
    sys.stderr.write("error: this is a bug in keyctl; please report it with the lines above\n")
