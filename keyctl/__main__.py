"""Run keyctl as ``python -m keyctl``."""

from keyctl.entry import main

main()
