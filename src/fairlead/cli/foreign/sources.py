"""Where the data of a foreign configuration is: files and names of data sets as sources of a recipe.

Example:
    sources(account, "data/demonstrations.jsonl")    # [Source(path="club.jsonl", format="alpaca", why="datasets there")]
"""

from pathlib import Path
from typing import Any

from fairlead.cli.foreign.accounting import Account, Fact, Untranslated
from fairlead.cli.foreign.tool import lacking
from fairlead.cli.recipe_text import Key

_FILE_TYPES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".ndjson")
_AXOLOTL_FORMATS = (  # beginning of `type` -> format of docs/formats.md
    ("alpaca", "alpaca"), ("sharegpt", "sharegpt"), ("completion", "trl_text"), ("chatml.ultra", "ultrafeedback_binarized"),
    ("ultra_apply", "ultrafeedback_binarized"), ("llama3.ultra", "ultrafeedback_binarized"), ("chatml.argilla", "argilla_binarized"),
    ("llama3.argilla", "argilla_binarized"), ("chat_template.default", "trl"), ("bradley_terry", "trl"), ("chat_template", "trl_messages"),
)  # fmt: skip


def sources(account: Account, placeholder: str) -> list[tuple[str, str, str]]:
    """(path, format, why) of each data set; hub data sets get a place to save them to."""
    fact = account.facts.pop("datasets", None)
    if fact is None:
        return [(placeholder, "", "not in the file: a path, relative to the recipe")]
    found = [_source(account, fact, entry) for entry in _entries(fact.value)]
    return found or [(placeholder, "", "not in the file: a path, relative to the recipe")]


def _entries(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, list) else [value]


def _source(account: Account, fact: Fact, entry: Any) -> tuple[str, str, str]:
    settings = entry if isinstance(entry, dict) else {"path": str(entry)}
    files = settings.get("data_files")
    name = str((files[0] if isinstance(files, list) and files else files) or settings.get("path", ""))
    name = name.partition("@")[2] or name  # OpenRLHF's `json@folder`
    hint = next((ours for start, ours in _AXOLOTL_FORMATS if str(settings.get("type", "")).startswith(start)), "")
    if hint == "trl_messages" and settings.get("field_messages") == "conversations":
        hint = "sharegpt"
    unread = sorted(set(settings) - {"path", "type", "data_files", "ds_type", "field_messages", "split"})
    if unread:
        account.notes.append(
            f"Of {fact.key}, {name}: {', '.join(str(u) for u in unread)} not translated; the format says which columns (docs/formats.md)."
        )
    if is_file(name):
        return name, hint, fact.source
    local = f"data/{Path(name).name}.jsonl"
    kind = account.tool.datasets_are
    account.notes.append(f"{name} is a {kind}: save it as {local} (JSONL), or name your own file.")
    return local, hint, f"{fact.source}: the {kind} {name}, saved as a file"


def is_file(name: str) -> bool:
    """True for what looks like a file rather than a hub id."""
    return name.endswith(_FILE_TYPES) or name.startswith(("/", "./", "../", "~"))


def prompt_sources(account: Account) -> None:
    fact = account.facts.pop("datasets", None)
    names = (
        [str(entry.get("path", "")) if isinstance(entry, dict) else str(entry) for entry in _entries(fact.value)]
        if fact
        else []
    )
    keys = [
        Key({"path": name} if is_file(name) else {"hub": name}, fact.source if fact else "") for name in names if name
    ]
    account.put(
        "prompts.sources",
        keys or [Key({"path": "data/prompts.jsonl"}, "not in the file: a path, relative to the recipe")],
        "prompts of the run",
    )


def share(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < 1:
        raise Untranslated(lacking("held-out rows are a share between 0 and 1"))
    return float(value)


def preferences(account: Account) -> None:
    (path, hint, why), *others = sources(account, "data/preferences.jsonl")
    account.put("preferences.path", path, why)
    if hint:
        account.put("preferences.format", hint, "format of docs/formats.md")
    if others:
        account.notes.append(
            f"Preferences are read from one file; not taken: {', '.join(other for other, _, _ in others)}. Join them first."
        )
    account.move("heldout", "preferences.heldout", share)


def data_sources(account: Account, path: str, placeholder: str, what: str, *, keeps_formats: bool = True) -> None:
    """Put the files of a stage that reads them itself, with the number of rows that is taken of a single one."""
    found, limit = sources(account, placeholder), account.facts.get("max_samples")
    more: dict[str, Any] = {}
    reason = ""
    if limit is not None and limit.key:
        if len(found) == 1:
            more, reason = {"take": limit.value}, f", {limit.source}"
            account.take("max_samples")
        else:
            account.drop(
                "max_samples", lacking("of several files, how many rows of each is not said; set `take` in each")
            )
    keys = [
        Key({"path": file, **({"format": hint} if hint and keeps_formats else {}), **more}, f"{why}{reason}")
        for file, hint, why in found
    ]
    account.put(path, keys, what)
