"""The last resort: a fault that nobody foresaw becomes one line, and its traceback a file that can be sent with a bug report."""

import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from fairlead import __version__
from fairlead.core.errors import explain, shorten

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


def describe(error: Exception, home: Path) -> str:
    """One line about the error that names the file with its traceback."""
    what = f"{type(error).__name__}: {shorten(str(error), max_chars=160)}"
    place = _keep(error, home)
    kept = f"the traceback is in {place}" if place else "the traceback could not be written anywhere"
    return explain("unexpected error", None, f"({what})", expected="no such thing: this is a fault of fairlead",
                   remedy=f"Please report it; {kept}")  # fmt: skip


def _keep(error: Exception, home: Path) -> Path | None:
    """Write the traceback under the home folder, or where temporary files go when that is full or read-only."""
    now = datetime.now(UTC)
    head = f"fairlead {__version__}, python {platform.python_version()}, {platform.platform()}, {now.isoformat(timespec='seconds')}\n"
    text = head + " ".join(sys.argv) + "\n\n" + "".join(traceback.format_exception(error))
    for folder in (home / "errors", Path(tempfile.gettempdir())):
        path = folder / f"fairlead-error-{now:%Y%m%d-%H%M%S-%f}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return path
    return None
