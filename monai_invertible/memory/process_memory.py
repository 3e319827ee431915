"""The largest memory the process has occupied, as the operating system counts it.

What ``LiveBytes`` cannot see is in here: kernel workspace, allocator reserve, the interpreter, the data. In return it
says nothing of what the memory was for, and memory once touched and freed may stay with the process.
"""

from __future__ import annotations

import sys

__all__ = ["process_peak_bytes", "reset_process_peak"]


def process_peak_bytes() -> int | None:
    """Highest resident set size of this process in bytes, since its start or since ``reset_process_peak``.

    None where the system does not tell (Windows).
    """
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_process_peak() -> bool:
    """Start the peak again from the present size, where the system allows it (Linux); returns whether it did."""
    try:
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
        return True
    except OSError:
        return False
