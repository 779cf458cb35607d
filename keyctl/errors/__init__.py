"""Declare every refusal: its machine code and its exit status."""

from keyctl.errors.asked import *
from keyctl.errors.happened import *
from keyctl.errors.refusal import ExitCode as ExitCode
from keyctl.errors.refusal import KeyctlError as KeyctlError
from keyctl.errors.refusal import Violation as Violation
