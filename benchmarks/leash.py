"""What keeps the processes under test from outliving a bench that was killed."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1


def hold() -> None:
    """Be killed when the process that started this one is gone, however it went. Linux only, as the bench is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
