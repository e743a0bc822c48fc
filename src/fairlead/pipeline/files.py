"""Where a recipe's files are: relative to the recipe, under FAIRLEAD_DATA, or shipped with the package."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairlead.core.config import Config, resolved
from fairlead.core.errors import ConfigError, FairleadError, explain
from fairlead.core.io import require_file

TEMPLATES = ("plain", "chatml")
"""Values of text.template that are no file."""
_FILE_FIELDS = frozenset({"path", "prompts", "minimal_pairs", "heldout_text", "opinions"})


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

    def missing(self, recipe: Config, *, sections: Collection[str]) -> Iterator[FairleadError]:
        """What is wrong with the files that these sections of the recipe name, each with its key; nothing when all are there."""
        for section in type(recipe).model_fields:
            if section in sections:
                for key, path in _named_files(getattr(recipe, section), key=section):
                    try:
                        self.find(path, key=key)
                    except FairleadError as error:
                        yield error

    def find_model(self, model: str | tuple[str, ...]) -> str:
        """A model folder relative to the same places, or the name as it is; of several the first that is there (or the last)."""
        names = (model,) if isinstance(model, str) else model
        for name in names:
            for folder in (Path(), *self.folders):
                if (folder / Path(name).expanduser() / "config.json").is_file():
                    return str(folder / Path(name).expanduser())
        return names[-1]

    def by_content(self, config: Any) -> Any:
        """A section with `name@hash` for every file that it names: a changed file means a new artifact, a moved one does not."""

        def replace(_key: str, text: str) -> str:
            path = self._find_any(text) if _may_be_file(text) else None
            return text if path is None else f"{path.name}@{file_hash(path)}"

        return _map_strings(config, replace)

    def standing_alone(self, recipe: Config) -> dict[str, Any]:
        """A recipe's data with absolute paths for the files and model folders that are there, so that it can be run from anywhere."""

        def replace(key: str, text: str) -> str:
            path = (
                self._find_any(text) if key in _FILE_FIELDS or (key == "template" and text not in TEMPLATES) else None
            )
            return text if path is None else str(path.resolve())

        data = _map_strings(resolved(recipe), replace)
        model = data["model"]
        data["model"] = (
            self._absolute_model(model) if isinstance(model, str) else [self._absolute_model(m) for m in model]
        )
        return data

    def _find_any(self, text: str) -> Path | None:
        """The file of this name, if there is one that can be read."""
        try:
            return self.find(text) if text else None
        except (FairleadError, OSError, ValueError):
            return None

    def _absolute_model(self, name: str) -> str:
        found = Path(self.find_model(name))
        return str(found.resolve()) if (found / "config.json").is_file() else name


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
    elif isinstance(value, (tuple, Mapping)):
        for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _named_files(item, key=f"{key}.{name}")


def _may_be_file(text: str) -> bool:
    return "." in text and len(text) < 1024 and "\n" not in text


def _map_strings(value: Any, replace: Callable[[str, str], str], *, key: str = "") -> Any:
    """A copy of plain data with each text replaced by `replace(its key, text)`."""
    if isinstance(value, str):
        return replace(key, value)
    if isinstance(value, Mapping):
        return {name: _map_strings(item, replace, key=str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, replace, key=key) for item in value]
    return value
