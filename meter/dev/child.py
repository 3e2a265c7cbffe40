"""Child processes that do not outlive their parent, not even one that is killed with SIGKILL (Linux)."""

from __future__ import annotations

import os
import sys
import threading

_LINUX = sys.platform == "linux"

# Becomes the child by exec. A program of its own, because a preexec_fn may deadlock when the parent has
# threads. The signal is armed before the parent is checked, so the parent's death is noticed at any moment.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


def can_end_with_parent() -> bool:
    """Whether a child started now would get SIGTERM when we die: the kernel ties that to the starting thread."""
    return _LINUX and threading.current_thread() is threading.main_thread()


def ending_with_parent(command: list[str], parent: int | None = None) -> list[str]:
    """The command line that runs `command` (an absolute program first) and ends with process `parent` (default: us)."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(parent or os.getpid()), *command]
