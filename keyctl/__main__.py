"""Run keyctl as ``python -m keyctl``."""

import sys

if not sys.flags.safe_path:
    # -m puts the current folder first, where anybody may have left a module.
    sys.path.pop(0)

from keyctl.entry import main

main()
