"""Exceptions of the training tools, and how their commands tell them."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from hubmodels.ctrl_c import INTERRUPTED
from hubmodels.errors import HubmodelsError
from hubmodels.files import FULL

# Why a file cannot be written or read that a user can do something about; other errors of the system are ours.
OF_PLACE = (*FULL, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR)


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; what its user can mend ends it with one line instead of a traceback, and status 1.

    Ctrl-C ends it likewise, with status 130.
    """
    try:
        main()
    except HubmodelsError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        if error.errno not in OF_PLACE or not error.filename:
            raise
        raise SystemExit(f"{error.filename}: {error.strerror}; make room, or name another place") from None
    except KeyboardInterrupt:
        print("\nstopped; a training goes on from its last checkpoint by --resume", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


class CommandError(HubmodelsError, ValueError):
    """What a command was asked for makes no sense; the message says what to change."""


class DataError(HubmodelsError):
    """A data set is incomplete or wrong; the message names the file."""


class RecipeError(HubmodelsError):
    """A recipe file has an unknown key, a missing value or one out of range; the message names it."""


class DivergedError(HubmodelsError):
    """A loss or a gradient is no finite number any more; the message says in which step."""
