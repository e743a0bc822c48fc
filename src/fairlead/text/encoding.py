"""Records to trees in a stream: shard by shard to files that are found again, so that neither records nor trees are held in memory.

    rows --hash--> shard there already? map it : encode, write, map --> StoredTrees

A shard's name is a hash of everything that its trees depend on: the rows' contents, the tokenizer and its version, the template, the
longest length, the kind of encoding, the code that encodes, the format. So the same data is tokenised once, a killed run goes on where
it was, and rows added to a file cost only themselves. All texts of a shard go to the tokenizer in one call, which shares them out among
its threads; the result does not depend on their number. Without a folder the same columns stay in memory, and nothing needs Arrow.

Example:
    storage = Storage.of(services, "sft: tokens")
    rows = ((record.split, record) for record in read_records(path, Preference))
    encoded = encode_parts(rows, encode_preferences, chat=chat, max_length=512, what="preferences", storage=storage)
    encoded["train"].trees[0]
"""

import functools
import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.core.arrow import Column, map_columns, write_columns
from fairlead.core.cache import mark_used, trim_folder
from fairlead.core.errors import DataError
from fairlead.core.records import Message
from fairlead.core.services import Services, silent_progress
from fairlead.text.chat import ChatText
from fairlead.text.columns import FORMAT, StoredTrees, TreeColumns, to_columns
from fairlead.text.examples import Encoded, require_some
from fairlead.text.packing import Ints

SHARD_ROWS = 8192
"""Rows a file, at most: few enough to be held, many enough to keep files few."""
SHARD_CHARS = 8 << 20
"""Characters of a file's rows, about, where rows are long."""
_TICK = 256  # rows between two looks at the keyboard
_SUFFIX = ".arrow"
_UNREAD = frozenset({"id", "meta", "source", "slice", "judgments", "row", "rows"})
"""Fields that no encoding reads; the `meta` of pairs is read before, into rankings and ratings."""
Encode = Callable[..., Encoded]
"""(chat, rows, *, max_length, may_be_empty) -> Encoded, as those of examples.py."""


@dataclass(slots=True, eq=False)
class Storage:
    """Where a stage keeps encoded rows, and what it says meanwhile. Single-use, not thread-safe."""

    folder: Path | None = None
    """None keeps columns in memory."""
    title: str = "tokens"
    services: Services = field(default_factory=lambda: Services(work=Path(), progress=silent_progress))
    num_unreadable: int = field(init=False, default=0)
    """Files that were damaged or of another version, and were made again."""
    _used: set[Path] = field(init=False, default_factory=set[Path])
    _has_written: bool = field(init=False, default=False)

    @classmethod
    def of(cls, services: Services, title: str) -> "Storage":
        """The home folder's cache, where the pipeline gives one."""
        return cls(folder=services.extras.get("tree_cache"), title=title, services=services)

    def find(self, key: str) -> tuple[Mapping[str, Column], dict[str, int]] | None:
        """Columns of a shard with its counts; None when it has to be made."""
        if self.folder is None:
            return None
        path = self.folder / (key + _SUFFIX)
        try:
            found = map_columns(path, version=FORMAT)
        except FileNotFoundError:
            return None
        except DataError:
            self.num_unreadable += 1
            return None
        mark_used(path)
        self._used.add(path)
        return found

    def keep(self, key: str, columns: Mapping[str, Column], counts: Mapping[str, int]) -> Mapping[str, Column]:
        """Put a shard where it is found again; the columns as they lie there."""
        if self.folder is None:
            return columns
        path = self.folder / (key + _SUFFIX)
        write_columns(path, columns, version=FORMAT, facts=counts)
        self._used.add(path)
        self._has_written = True
        try:
            return map_columns(path, version=FORMAT)[0]
        except FileNotFoundError:  # somebody emptied the folder just now
            return columns

    def close(self) -> None:
        """Make room for what was written, and say what was found wrong."""
        if self.num_unreadable:
            self.services.say(f"{self.title}: {self.num_unreadable} cached files were damaged or of another version and were made again")  # fmt: skip
            self.num_unreadable = 0
        if self.folder is not None and self._has_written:
            trim_folder(self.folder, "*" + _SUFFIX, keep=self._used)
            self._has_written = False


def encode_rows(
    rows: Iterable[Any], encode: Encode, *, chat: ChatText, max_length: int, what: str, storage: Storage | None = None
) -> Encoded:
    """Encode rows of one kind that are one part; see `encode_parts`."""
    parts = encode_parts(((what, row) for row in rows), encode, chat=chat, max_length=max_length, what=what, storage=storage)  # fmt: skip
    return parts.get(what) or require_some(Encoded(), what, max_length)


def encode_parts(
    rows: Iterable[tuple[str | None, Any]], encode: Encode, *, chat: ChatText, max_length: int, what: str, storage: Storage | None = None,
    num_rows: int = 0,
) -> dict[str, Encoded]:  # fmt: skip
    """Encode rows in one pass into parts (training, held out), of which each numbers its own rows.

    Args:
        rows: (part, row); those of part None are left out.
        encode: a function of a module.
        what: the rows in an error.
        num_rows: for the progress line, when it is known.
    Returns:
        Parts that got rows, by name.
    Raises:
        DataError: of a part nothing is left, or a row cannot be encoded.
        Interrupted: the user pressed ctrl-C.
    """
    store = storage or Storage()
    salt = "" if store.folder is None else _salt(encode, chat, max_length)
    parts: dict[str, _Part] = {}
    number = 0
    with store.services.progress(store.title, num_rows) as bar:
        for number, (name, row) in enumerate(rows, start=1):
            if name is not None:
                if name not in parts:
                    parts[name] = _Part(
                        functools.partial(encode, chat, max_length=max_length, may_be_empty=True), salt, store
                    )
                parts[name].add(row)
            if number % _TICK == 0:
                store.services.heed(store.title)
                bar.advance(_TICK)
        found = {name: part.finish() for name, part in parts.items()}
        bar.advance(number % _TICK)
    store.close()
    return {
        name: require_some(part, what if name == what else f"{what} ({name})", max_length)
        for name, part in found.items()
    }


class _Part:
    """Collects the rows of one part, a shard at a time."""

    def __init__(self, encode: Callable[[list[Any]], Encoded], salt: str, storage: Storage) -> None:
        self.encode, self.salt, self.storage = encode, salt.encode(), storage
        self.shards: list[TreeColumns] = []
        self.kept_rows: list[Ints] = []
        self.counts: dict[str, int] = {}
        self.num_rows = 0
        self._begin()

    def _begin(self) -> None:
        self.rows: list[Any] = []
        self.num_chars = 0
        self.digest = hashlib.sha256(self.salt)

    def add(self, row: Any) -> None:
        """Take one row; encode when the shard is full."""
        content = _JSON.encode(_reader(type(row))(row)).encode()  # ASCII, so half surrogates pass too
        self.digest.update(content)
        self.num_chars += len(content)
        self.rows.append(row)
        if len(self.rows) >= SHARD_ROWS or self.num_chars >= SHARD_CHARS:
            self._flush()

    def _flush(self) -> None:
        key = self.digest.hexdigest()[:32]
        columns, counts = self.storage.find(key) or self._make(key)
        self.shards.append(TreeColumns(columns))
        self.kept_rows.append(columns["row"].values + self.num_rows)
        self.num_rows += len(self.rows)
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self._begin()

    def _make(self, key: str) -> tuple[Mapping[str, Column], dict[str, int]]:
        encoded = self.encode(self.rows)
        counts = encoded.counts()
        columns = {**to_columns(encoded.trees), "row": Column(np.asarray(encoded.kept_rows, dtype=np.int64))}
        return self.storage.keep(key, columns, counts), counts

    def finish(self) -> Encoded:
        """Everything that was added."""
        if self.rows:
            self._flush()
        return Encoded(trees=StoredTrees(self.shards), kept_rows=np.concatenate(self.kept_rows), **self.counts)


@functools.cache
def _reader(cls: type) -> Callable[[Any], Any]:
    """What an encoding may read of a row."""
    return operator.attrgetter(*(f.name for f in fields(cls) if f.name not in _UNREAD))


def _message(value: Any) -> Any:
    assert isinstance(value, Message), type(value)
    return [value.role, value.content]


_JSON = json.JSONEncoder(default=_message)


def _salt(encode: Encode, chat: ChatText, max_length: int) -> str:
    return f"{FORMAT} {encode.__module__}.{encode.__qualname__} {max_length} {chat.fingerprint} {_code_hash()}"


@functools.cache
def _code_hash() -> str:
    """Of the files that decide what becomes of a row: a change in them must not find what the old ones made."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in (
        "chat.py",
        "columns.py",
        "encoding.py",
        "examples.py",
        "groups.py",
        "packing.py",
        "rankings.py",
        "ratings.py",
    ):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]
