"""The cause of an error as the last line of a bundle's output.

``python -m monai.bundle run`` ends with "Failed to evaluate ConfigExpression ..."; what went wrong stands above fifty
lines of traceback. A bundle that calls this function in its ``initialize`` says it again at the end.
"""

from __future__ import annotations

import re
import sys
import traceback
from types import TracebackType

__all__ = ["show_cause_last"]

_WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")  # MONAI's, each around a cause


def show_cause_last() -> None:
    """From now on, an exception that ends this process prints its cause again after the traceback; Ctrl-C one line."""
    if getattr(sys.excepthook, "shows_cause_last", False):
        return
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if kind is KeyboardInterrupt:
            print("\ninterrupted: what was written stays; a training goes on with --resume True", file=sys.stderr)
            return
        before(kind, error, trace)
        cause = error
        while str(cause).startswith(_WRAPPERS) and cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is not error:
            print(f"\nerror: {_say(cause)}", file=sys.stderr)

    hook.shows_cause_last = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _say(error: BaseException) -> str:
    """The type and message of an error; of one in a ``DataLoader``'s process, those in the traceback it sent."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    if "in DataLoader worker" in text.partition("\n")[0]:
        sent = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception): ", line)]
        text = next((line for line in reversed(sent[1:]) if not line.partition(": ")[2].startswith(_WRAPPERS)), text)
    return text
