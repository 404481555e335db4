"""What ends a command other than well: one message for what the user can mend, and an exit code for each kind."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path

from rlhf.core.errors import LostError, UserError
from rlhf.loops.interrupt import Interrupted


def ending(error: BaseException) -> int | None:
    """Say on standard error what ended the command; its exit code, or None where only a traceback can help."""
    said = _message(error)
    if said is None:
        return None
    code, text = said
    print(text, file=sys.stderr)
    return code


def _message(error: BaseException) -> tuple[int, str] | None:
    match error:
        case UserError():
            return 2, f"error: {error}"
        case LostError():
            return 70, f"error: lost {error}\n  fix: the same command continues from the last checkpoint"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            where = error.filename or "the disk"
            return 2, f"error: {where}: {error.strerror}\n  fix: free disk space, then run the same command"
        case ImportError() if _is_of_a_package(error):
            return 2, f"error: {error}\n  fix: run `rlhf doctor`: it says what is wrong with the installation"
        case KeyboardInterrupt():
            return 130, "interrupted; the same command continues from the last checkpoint"
        case Interrupted():
            return error.exit_code, str(error)
    return None


def _is_of_a_package(error: ImportError) -> bool:
    """Whether an installed package failed to import what it needs, and not this code or the user's own."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    named = [file for file in files if not file.startswith("<")]
    return bool(named) and "site-packages" in Path(named[-1]).parts
