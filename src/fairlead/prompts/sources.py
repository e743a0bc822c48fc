"""Where prompts come from: a file, a file in a known preference or demonstration format, or a data set of the hub.

Example:
    source = SourceConfig(path="questions.csv", field="question", slice="facts", take=500)
    candidates = read_source(source, index=0, name="questions", reading=Reading(ledger=ledger, folders=(Path(),)))
"""

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import pydantic

from fairlead.core.config import Config
from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.io import Row, read_rows
from fairlead.core.records import Messages, Prompt
from fairlead.prompts.conversations import cut_words, to_messages
from fairlead.prompts.ledger import Candidate, Ledger
from fairlead.prompts.words import stable_hash

AUTO_FIELDS = ("prompt", "messages", "instruction", "question", "text")
VERIFIED_FIELDS = ("reference", "answer", "pattern", "schema", "tests", "instruction_id_list", "kwargs")
"""Where verifiers look by default, IFEval's two columns among them."""
NO_SLICE = "(none)"
ReadPrompts = Callable[..., Iterable[Prompt]]


class SourceConfig(Config):
    """One place that prompts come from; plain text in the recipe stands for `path`."""

    path: str = ""
    """File (.jsonl, .json, .csv, .tsv, .parquet; text types may end in .gz), relative to the recipe's folder or to an input."""
    hub: str = ""
    """Name of a data set on the hub (or a local folder that the `datasets` package can load); instead of `path`."""
    subset: str = ""
    """Configuration name of the hub data set; empty for its only one."""
    split: str = "train"
    """Split of the hub data set."""
    format: str = ""
    """Name of a preference or demonstration format whose prompts are wanted, `auto` to detect it; empty for a plain table."""
    field: str = "auto"
    """Column with the prompt text or messages; auto takes the first of prompt, messages, instruction, question, text."""
    input_field: str = "auto"
    """Column that follows the prompt after a blank line (Alpaca's `input`); auto: `input` after `instruction`; empty: none."""
    slice: str = ""
    """Slice of all its prompts; empty: `all`, or what the format says."""
    slice_field: str = ""
    """Column that holds the slice of each row; empty: none."""
    meta_fields: tuple[str, ...] = VERIFIED_FIELDS
    """Columns that go with the prompt where rows have them, beside what a column `meta` holds: answers and tests for verifiers, and what conditions
    of rewards ask for."""
    take: int | None = pydantic.Field(default=None, ge=1)
    """At most this many rows, a fixed random choice rather than the head (files are often sorted); None for all."""
    first_words: int | None = pydantic.Field(default=None, ge=1)
    """Use only this many words of the last turn (prompts for continuation); None for the whole text."""
    name: str = ""
    """Name in records and reports; empty: the file's or the data set's own name."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_plain_text(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data

    @pydantic.model_validator(mode="after")
    def _check_combination(self) -> Self:
        for first, second in (("slice", "slice_field"), ("format", "hub"), ("path", "hub")):
            if getattr(self, first) and getattr(self, second):
                raise ValueError(explain(first, getattr(self, first), f"excludes {second}", expected=f"one of {first}, {second}",
                                         remedy="Remove one of them"))  # fmt: skip
        if not self.path and not self.hub:
            raise ValueError(
                explain("path", None, "is missing", expected="path or hub", remedy="Name the file or the data set")
            )
        if self.format and (self.field != "auto" or self.slice_field or self.meta_fields != VERIFIED_FIELDS):
            raise ValueError(explain("format", self.format, "knows its own columns", expected="no field, no slice_field and no meta_fields",
                                     remedy="Remove them, or read a plain table without format"))  # fmt: skip
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What all sources of one run share."""

    ledger: Ledger
    folders: tuple[Path, ...]
    """Where relative paths are looked up, first match wins."""
    read_prompts: ReadPrompts | None = None
    """`(path, *, format, rejects)`; None means that of fairlead.formats."""


def source_names(sources: Sequence[SourceConfig]) -> list[str]:
    """Names without machine paths; files that share a name are told apart by their folder."""
    short = [source.name or source.hub or _stem(source.path) for source in sources]
    return [
        f"{Path(source.path).parent.name}/{name}" if source.path and not source.name and short.count(name) > 1 else name
        for source, name in zip(sources, short, strict=True)
    ]


def _stem(path: str) -> str:
    name = Path(path).name
    return name.split(".")[0] or name


def read_source(
    config: SourceConfig, *, index: int, name: str, reading: Reading, is_heldout: bool = False
) -> list[Candidate]:
    """Read one source; rows that are no prompts are rejected, rows beyond `take` are counted.

    Raises:
        DataError: a missing or damaged file, or a column that no row has.
        ConfigError: the package that reads the source is not installed.
    """
    read = _read_format if config.format else _read_table
    candidates = [
        Candidate(messages=messages if config.first_words is None else cut_words(messages, num_words=config.first_words),
                  slice=slice_name, source=index, source_name=name, is_heldout_source=is_heldout, where=row.where,
                  number=row.number, meta={**_own_meta(row, config), "row": row.number})
        for messages, slice_name, row in read(config, index, reading)
    ]  # fmt: skip
    if config.take is None or len(candidates) <= config.take:
        return candidates
    reading.ledger.not_taken[index] = len(candidates) - config.take
    return heapq.nsmallest(config.take, candidates, key=lambda c: (stable_hash(c.key, salt="take"), c.slice, c.number))


Found = tuple[Messages, str, Row]


def _own_meta(row: Row, config: SourceConfig) -> dict[str, Any]:
    """What a row says of itself besides: answers and tests for verifiers, conditions of rewards. A column that JSON cannot hold stays behind."""
    meta = row.values.get("meta")
    columns = {name: row.values[name] for name in config.meta_fields if _can_be_kept(row.values.get(name))}
    own = cast(Mapping[Any, Any], meta) if isinstance(meta, Mapping) else {}
    return {**columns, **{str(key): value for key, value in own.items()}}


def _can_be_kept(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return value is not None


def _read_format(config: SourceConfig, index: int, reading: Reading) -> Iterator[Found]:
    """Prompts through the readers of other people's formats; what these reject counts as rows of this source."""
    path, ledger = find_file(config.path, reading.folders), reading.ledger
    read_prompts = reading.read_prompts or _formats_reader()
    before = ledger.rejects.total
    known_format = None if config.format == "auto" else config.format
    for number, prompt in enumerate(read_prompts(path, format=known_format, rejects=ledger.rejects), start=1):
        ledger.rows[index] += 1
        row = Row(
            f"{path}#{number}",
            number,
            {"messages": [f"{m.role}: {m.content}" for m in prompt.messages], "meta": dict(prompt.meta)},
        )
        messages = to_messages([{"role": m.role, "content": m.content} for m in prompt.messages])
        if isinstance(messages, str):
            before += 1  # counted by reject_row already
            ledger.reject_row(index, row, messages)
        else:
            yield messages, config.slice or prompt.slice, row
    num_rejected = ledger.rejects.total - before
    ledger.rows[index] += num_rejected
    ledger.rejected[index] += num_rejected


def _formats_reader() -> ReadPrompts:
    from fairlead.formats import read_prompts

    return read_prompts


def _read_table(config: SourceConfig, index: int, reading: Reading) -> Iterator[Found]:
    """Prompts of a table with one column for the prompt."""
    ledger, columns, has_slice = reading.ledger, dict[str, None](), False
    field = "" if config.field == "auto" else config.field
    was_found = False
    for row in _open(config, reading):
        ledger.rows[index] += 1
        columns.update(dict.fromkeys(row.values))
        field = field or next((name for name in AUTO_FIELDS if name in row.values), "")
        if not field or field not in row.values:
            ledger.reject_row(index, row, f"no column {field or 'with the prompt'}")
            continue
        was_found = True
        has_slice = has_slice or config.slice_field in row.values
        messages = to_messages(_with_input(row, field=field, config=config))
        if isinstance(messages, str):
            ledger.reject_row(index, row, messages)
        else:
            yield messages, _slice_of(row, config), row
    if not was_found:
        raise _missing_column("field", config, list(columns), config.field)
    if config.slice_field and not has_slice:
        raise _missing_column("slice_field", config, list(columns), config.slice_field)


def _with_input(row: Row, *, field: str, config: SourceConfig) -> Any:
    """The prompt's cell, followed by the input column where there is one."""
    value = row.values[field]
    column = ("input" if field == "instruction" else "") if config.input_field == "auto" else config.input_field
    extra = row.values.get(column) if column else None
    if not isinstance(value, str) or not isinstance(extra, str) or not extra.strip():
        return value
    return f"{value}\n\n{extra}"


def _slice_of(row: Row, config: SourceConfig) -> str:
    if not config.slice_field:
        return config.slice or "all"
    value = row.values.get(config.slice_field)
    return NO_SLICE if value is None or not str(value).strip() else str(value).strip()


def _missing_column(key: str, config: SourceConfig, columns: list[str], wanted: str) -> DataError:
    place = config.path or config.hub
    if wanted == "auto":
        known = ", ".join(AUTO_FIELDS)
        return DataError(explain(place, None, f"has no column that is known to hold prompts ({', '.join(columns)})", expected=known,
                                 remedy="Set field to the right column, or format for a file of preferences"))  # fmt: skip
    return DataError(explain(f"{place}: {key}", wanted, f"is in no row{nearest(wanted, columns)}", expected="one of " + ", ".join(columns),
                             remedy=f"Set {key} to one of these"))  # fmt: skip


def _open(config: SourceConfig, reading: Reading) -> Iterator[Row]:
    return _read_hub(config) if config.hub else read_rows(find_file(config.path, reading.folders))


def find_file(path: str, folders: Sequence[Path]) -> Path:
    """The first folder that has it wins; the first folder's path is returned, for the error message, when none has."""
    options = [folder / Path(path).expanduser() for folder in folders]
    return next((option for option in options if option.exists()), options[0])


def _read_hub(config: SourceConfig) -> Iterator[Row]:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise ConfigError(explain("prompts.sources.hub", config.hub, "needs the datasets package, which is not installed",
                                  expected="datasets >= 4", remedy="Run pip install 'fairlead[train]', or download the file and use path"
                                  )) from error  # fmt: skip
    try:
        rows = datasets.load_dataset(config.hub, config.subset or None, split=config.split)
    except (ValueError, OSError, DatasetsError) as error:
        raise DataError(explain("prompts.sources.hub", config.hub, f"cannot be loaded ({error})", expected="a data set with that split",
                                remedy="Check name, subset, split and the network")) from error  # fmt: skip
    for number, values in enumerate(rows, start=1):
        yield Row(f"{config.hub}/{config.split}[{number - 1}]", number, dict(values))
