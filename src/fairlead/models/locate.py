"""Finding a model: `bundled`, a folder, or a hub id. A folder is checked before anything is loaded from it.

Only small files and headers are read, so that a run refuses a damaged model in its first second. A hub id is looked for among
the downloaded models, then asked for once: a mistyped path must not wait for the hub client's retries.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from fairlead.core.errors import ModelError, explain

BUNDLED = "bundled"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json",
                   "tiktoken.model")  # fmt: skip
"""Files that hold a vocabulary; a tokenizer needs one of them."""
_HUB_TIMEOUT_S = 5.0
_MERGE = (
    "Merge it first: python -c \"from peft import AutoPeftModelForCausalLM as M; M.from_pretrained('{path}').merge_and_unload()"
    ".save_pretrained('merged')\", and copy the tokenizer's files"
)


def bundled_model() -> Path:
    """Folder of the model that ships with the package."""
    return Path(__file__).parents[1] / "bundled" / "model"


def resolve_model(model: str, *, folders: Sequence[Path] = ()) -> str:
    """Turn `bundled`, a folder, or a hub id into a folder or a hub id; nothing is asked of the hub.

    Args:
        folders: where relative paths may start, besides the current folder.
    Raises:
        ModelError: a path that is no folder (with the nearest name), or a folder that cannot be loaded.
    """
    if model == BUNDLED:
        return str(bundled_model())
    path, bases = Path(model).expanduser(), (Path(), *folders)
    for place in (base / path for base in bases):
        if place.is_dir():
            check_folder(place)
            return str(place)
    is_path = path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1
    if is_path or (any((base / path).parent.is_dir() for base in bases) and hub_folder(model) is None):
        wrong = "is a file" if path.is_file() else f"is not a folder{_suggestion(path, bases)}"
        raise ModelError(explain("model", model, wrong, expected="a model folder, a hub id (org/name), or `bundled`",
                                 remedy="Check the path"))  # fmt: skip
    return model


def locate_model(model: str) -> str:
    """The folder to load from, or a hub id that the hub knows; waits for the hub at most a few seconds.

    Raises:
        ModelError: as `resolve_model`; not on the hub, or the hub cannot be reached and nothing was downloaded.
    """
    source = resolve_model(model)
    if Path(source).is_dir():
        return source
    folder = hub_folder(source)
    if folder is not None and _is_whole(folder):
        return str(folder)
    refusal = _ask_hub(source)
    if refusal is None:
        return source
    if folder is None:
        raise refusal
    check_folder(folder)  # says what the download lacks
    return str(folder)


def hub_folder(model: str) -> Path | None:
    """Folder of the downloaded files of a hub model, whole or not."""
    from huggingface_hub import try_to_load_from_cache  # slow to import, and folders do not need it

    try:
        found = try_to_load_from_cache(model, "config.json")
    except ValueError:  # no name that a hub allows
        return None
    return Path(found).parent if isinstance(found, str) else None


def _is_whole(folder: Path) -> bool:
    try:
        check_folder(folder)
    except ModelError:
        return False
    return has_tokenizer(folder)


def has_tokenizer(folder: Path) -> bool:
    """True when a folder holds a vocabulary."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _ask_hub(model: str) -> ModelError | None:
    """One request without retries: None when the hub has the model (or is too busy to say), else what to tell the user."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    near = _suggestion(Path(model), (Path(),))
    wrong, remedy = f"is neither a folder{near} nor on the hub", "Check the name; a private model needs `hf auth login`"
    try:
        get_hf_file_metadata(hf_hub_url(model, "config.json"), timeout=_HUB_TIMEOUT_S)
        return None
    except GatedRepoError:
        wrong, remedy = "is gated on the hub", "Ask for access on its page, then run `hf auth login`"
    except EntryNotFoundError:
        wrong, remedy = (
            "has no config.json on the hub",
            "Name a whole model; an adapter must be merged into its base first",
        )
    except (RepositoryNotFoundError, ValueError):  # ValueError: no name that a hub allows
        pass
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (408, 429) or status >= 500:
            return None  # the loader tries again, patiently
        wrong, remedy = f"is refused by the hub ({status})", "Check the name and HF_ENDPOINT"
    except Exception as error:  # the kinds of the HTTP client, which changed between versions of the hub's package
        reason = (
            "HF_HUB_OFFLINE is set"
            if is_offline_mode()
            else str(error).splitlines()[0]
            if str(error)
            else type(error).__name__
        )
        wrong = f"is not a folder{near}, was not downloaded before, and the hub cannot be reached ({reason[:100]})"
        remedy = "Check the path; without a network name a local folder"
    return ModelError(
        explain("model", model, wrong, expected="a model folder, a hub id (org/name), or `bundled`", remedy=remedy)
    )


def _suggestion(path: Path, bases: Iterable[Path]) -> str:
    """` (did you mean X?)` for the folder nearest to a path, its parent included, or an empty string."""
    for base in bases:
        parent = (base / path).parent
        found = _nearest(path.name, [parent] if parent.is_dir() else _nearest(parent.name, [parent.parent]))
        if found:
            return f" (did you mean {found[0] if path.is_absolute() else found[0].relative_to(base)}?)"
    return ""


def _nearest(name: str, parents: Iterable[Path]) -> list[Path]:
    """The folder inside `parents` whose name is most like `name`, if any."""
    folders = {child.name: child for parent in parents for child in _subfolders(parent)}
    return [folders[match] for match in difflib.get_close_matches(name, folders, n=1)]


def _subfolders(folder: Path) -> Iterator[Path]:
    try:
        yield from (child for child in folder.iterdir() if child.is_dir())
    except OSError:
        return


def check_folder(path: Path) -> None:
    """Refuse a model folder that is incomplete, damaged, holds weights only as pickles, or holds an adapter."""
    if (path / "adapter_config.json").is_file():
        base = read_object(path / "adapter_config.json").get("base_model_name_or_path")
        raise ModelError(explain(path, None, f"holds an adapter (of {base}), which is not loaded by itself", expected="a whole model",
                                 remedy=_MERGE.format(path=path)))  # fmt: skip
    if not (path / "config.json").is_file():
        raise ModelError(
            explain(path, None, "has no config.json", expected="a transformers model folder", remedy="Check the path")
        )
    read_object(path / "config.json")
    for file in _weight_files(path):
        _check_header(file)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        ModelError: it is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        wrong = "" if isinstance(value, dict) else "is damaged (not an object)"
    except (ValueError, RecursionError) as error:
        value, wrong = None, f"is damaged ({error})"
    except OSError as error:
        value, wrong = None, f"cannot be read ({error.strerror})"
    if wrong:
        raise ModelError(explain(path, None, wrong, expected="a JSON object", remedy="Copy or download it again"))
    return cast(dict[str, Any], value)


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            files = [path / name for name in sorted(set(read_object(index)["weight_map"].values()))]
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                explain(index, None, "is damaged", expected="an index with a weight_map", remedy="Copy it again")
            ) from error
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ModelError(explain(path, None, f"lacks {len(missing)} of {len(files)} weight shards (first: {missing[0]})",
                                     expected="every shard that the index names", remedy="Copy the missing files"))  # fmt: skip
        return files
    if not (path / "model.safetensors").is_file():
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        found = f" (found {pickles[0]}, a pickle, which is never loaded)" if pickles else ""
        raise ModelError(explain(path, None, f"has no model.safetensors{found}", expected="safetensors weights",
                                 remedy="Convert the weights to safetensors or copy the missing file"))  # fmt: skip
    return [path / "model.safetensors"]


def _check_header(path: Path) -> None:
    """The header is whole and the file is as long as it says."""
    try:
        with safe_open(path, "pt"):
            return
    except (SafetensorError, OSError) as error:
        reason = str(error).rpartition(": ")[2]
        wrong, remedy = f"is damaged ({reason})", "Copy or download it again"
        with path.open("rb") as file:
            if file.read(24) == b"version https://git-lfs.":
                wrong, remedy = (
                    "is a pointer of git-lfs, not the weights",
                    "Run `git lfs pull` in the model's repository",
                )
        raise ModelError(explain(path, None, wrong, expected="a whole safetensors file", remedy=remedy)) from error
