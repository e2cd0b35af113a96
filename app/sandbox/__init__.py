"""The sandbox for people's Python: functions are checked with line numbers and run in Monty workers.

Monty is an interpreter of a Python subset in its own process, without files, network, environment or
third-party code. Time, memory, recursion and output are bounded inside it and once more from here.
"""

from app.sandbox.host import Host
from app.sandbox.runtime import DEFAULT_LIMITS, Limits, Outcome, aclose, check, run, run_script
from app.sandbox.source import ALLOWED_IMPORTS, FunctionSpec, read_function
from app.sandbox.values import ResultTooLarge, to_json

__all__ = [
    "ALLOWED_IMPORTS",
    "DEFAULT_LIMITS",
    "FunctionSpec",
    "Host",
    "Limits",
    "Outcome",
    "ResultTooLarge",
    "aclose",
    "check",
    "read_function",
    "run",
    "run_script",
    "to_json",
]
