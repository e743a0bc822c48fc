"""Where a recipe's files are: relative to the recipe, under FAIRLEAD_DATA, or shipped with the package."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairlead.core.errors import ConfigError, FairleadError, explain
from fairlead.core.io import require_file


class FileFinder:
    """Resolves the paths of one recipe. Absolute paths stand for themselves."""

    def __init__(self, recipe_folder: Path) -> None:
        data = os.environ.get("FAIRLEAD_DATA")
        bundled = Path(__file__).parents[1] / "bundled"
        self.folders: tuple[Path, ...] = tuple(
            f for f in (recipe_folder, Path(data) if data else None, bundled) if f is not None
        )

    def find(self, path: str) -> Path:
        """The first existing place.

        Raises:
            ConfigError: nowhere; names where it was looked for.
        """
        candidate = Path(path).expanduser()
        if candidate.is_absolute():
            require_file(candidate)
            return candidate
        for folder in self.folders:
            if (folder / candidate).is_file():
                return folder / candidate
        hint = "" if os.environ.get("FAIRLEAD_DATA") else "; set FAIRLEAD_DATA if it belongs to a data collection"
        raise ConfigError(explain(path, None, "is not found", expected="a file in " + ", ".join(str(f) for f in self.folders),
                                  remedy=f"Check the path{hint}"))  # fmt: skip

    def find_model(self, model: str | tuple[str, ...]) -> str:
        """A model folder relative to the same places, or the name as it is; of several the first that is there (or the last)."""
        names = (model,) if isinstance(model, str) else model
        for name in names:
            for folder in (Path(), *self.folders):
                if (folder / Path(name).expanduser() / "config.json").is_file():
                    return str(folder / Path(name).expanduser())
        return names[-1]

    def fingerprints(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Content hash of every file that a section names, so that a changed file means a new artifact."""
        found: dict[str, str] = {}
        for text in sorted(set(_strings(config))):
            try:
                path = self.find(text)
            except (FairleadError, OSError, ValueError):
                continue
            found[text] = file_hash(path)
        return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def folder_hash(folder: Path) -> str:
    """SHA-256 over names and contents of a model folder's files."""
    parts = [f"{p.relative_to(folder)}:{file_hash(p)}" for p in sorted(folder.rglob("*")) if p.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "." in value and len(value) < 1024 and "\n" not in value:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
