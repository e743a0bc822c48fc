"""Which code made a result: the package version and a hash of the package's own source, so that an edit ends every cache."""

import functools
import hashlib
from pathlib import Path

from fairlead import __version__

_SOURCE_SUFFIXES = frozenset({".py", ".jinja", ".yaml", ".txt"})


@functools.cache
def code_version() -> str:
    """Return `<version>+<12 hex>`; computed once a process."""
    return f"{__version__}+{hash_source(Path(__file__).parents[1])}"


def hash_source(package: Path) -> str:
    """Hash names and bytes of all source files below a folder, in an order that no file system decides."""
    digest = hashlib.sha256()
    files = {p.relative_to(package).as_posix(): p for p in package.rglob("*") if p.suffix in _SOURCE_SUFFIXES}
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
