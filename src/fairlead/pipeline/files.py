"""Where a recipe's files are: relative to the recipe, under FAIRLEAD_DATA, or shipped with the package."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairlead.core.config import Config
from fairlead.core.errors import ConfigError, FairleadError, explain
from fairlead.core.io import require_file

_FILE_FIELDS = frozenset({"path", "prompts", "minimal_pairs", "heldout_text"})


class FileFinder:
    """Resolves the paths of one recipe. Absolute paths stand for themselves."""

    def __init__(self, recipe_folder: Path) -> None:
        data = os.environ.get("FAIRLEAD_DATA")
        bundled = Path(__file__).parents[1] / "bundled"
        self.folders: tuple[Path, ...] = tuple(
            f for f in (recipe_folder, Path(data) if data else None, bundled) if f is not None
        )

    def find(self, path: str, *, key: str = "") -> Path:
        """The first existing place.

        Args:
            key: of the recipe, for the message.
        Raises:
            ConfigError: nowhere; names where it was looked for.
            DataError: a folder, or not readable.
        """
        candidate = Path(path).expanduser()
        for place in (folder / candidate for folder in self.folders):  # an absolute path replaces the folder
            if place.exists() or candidate.is_absolute():
                require_file(place)
                return place
        hint = "" if os.environ.get("FAIRLEAD_DATA") else "; set FAIRLEAD_DATA if it belongs to a data collection"
        raise ConfigError(explain(key or path, path if key else None, "is not found", expected="a file in " + ", ".join(str(f) for f in self.folders),
                                  remedy=f"Check the path{hint}"))  # fmt: skip

    def check(self, recipe: Config, *, sections: Collection[str]) -> None:
        """Find every file that these sections of the recipe name, before hours are spent on what comes before them.

        Raises:
            ConfigError, DataError: the first that is missing, with its key.
        """
        for section in type(recipe).model_fields:
            if section in sections:
                for key, path in _named_files(getattr(recipe, section), key=section):
                    self.find(path, key=key)

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


def check_context(model: Path, max_length: int) -> None:
    """Refuse texts longer than the positions that a model in a folder was made for (nothing is known of one on a hub).

    Raises:
        ConfigError: with both lengths.
    """
    path = model / "config.json"
    if not path.is_file():
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return  # the loader says what is wrong with it
    context = next(
        (config[k] for k in ("max_position_embeddings", "n_positions") if isinstance(config.get(k), int)), max_length
    )
    if max_length > context:
        raise ConfigError(explain("text.max_length", max_length, "is longer than the model's context", expected=f"<= {context}",
                                  remedy="Lower it or choose another model"))  # fmt: skip


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


def _named_files(value: Any, *, key: str) -> Iterator[tuple[str, str]]:
    """Key and path of every field of a config that holds the name of a file."""
    if isinstance(value, Config):
        for name in type(value).model_fields:
            child = getattr(value, name)
            if name in _FILE_FIELDS and isinstance(child, str) and child:
                yield f"{key}.{name}", child
            else:
                yield from _named_files(child, key=f"{key}.{name}")
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _named_files(item, key=f"{key}.{number}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "." in value and len(value) < 1024 and "\n" not in value:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
