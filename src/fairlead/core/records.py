"""The records that stages exchange on disk: frozen, hashed, versioned.

Every record has an `id` that is a hash of its content (all fields but `id` and `meta`), so equal content has an equal id on
every machine, and a lineage can be followed from a released model back to the single judgments.

Flow: Prompt -> Completion -> Task -> Judgment -> Preference -> (Score, trained models) -> EvalResult -> Release.

Example:
    prompt = Prompt(messages=(Message(role="user", content="Hi"),), slice="greeting", source="own")
    prompt.id            # 'p-3f2a...'
    row = to_dict(prompt)
    assert from_dict(Prompt, row) == prompt
"""

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from fairlead.core.errors import DataError, explain, nearest

SCHEMA_VERSION = 1
NO_SIDE = "none"
"""`meta.side` of a judgment on a pair that nobody was shown."""

Role = Literal["system", "user", "assistant", "tool"]
Verdict = Literal["a", "b", "tie", "both_bad", "skip"]
RaterKind = Literal["human", "simulated", "judge"]
FinishReason = Literal["stop", "length"]
Split = Literal["train", "heldout"]


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_hash(payload: object, *, num_chars: int = 16) -> str:
    """Hash JSON-able content; independent of key order and of the machine."""
    return hashlib.sha256(_CANONICAL.encode(payload).encode()).hexdigest()[:num_chars]


class Record:
    """Base of all records: fills `id` from the content unless one is given.

    Invariant: two records of one type with equal fields (but `meta`) have equal ids. Immutable and picklable.
    """

    __slots__ = ()
    prefix: typing.ClassVar[str] = "r"

    def __post_init__(self) -> None:
        if not getattr(self, "id"):  # noqa: B009 - subclasses declare the field
            names = typing.cast(tuple[str, ...], _field_names(type(self)))
            payload = {name: _plain(getattr(self, name)) for name in names if name not in ("id", "meta")}
            object.__setattr__(self, "id", f"{self.prefix}-{content_hash(payload)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(Record):
    """What the model is asked: a conversation that ends before the assistant's turn (or plain text as one user message)."""

    prefix: typing.ClassVar[str] = "p"
    messages: Messages
    slice: str = "all"
    """Category in the declared prompt mix; figures are reported by slice."""
    source: str = "unknown"
    """File or data set that it came from."""
    split: Split = "train"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(Record):
    """One reply to a prompt. `text` has no special tokens; `token_ids` are exactly what the engine sampled, with what environments
    said between turns (core/transcripts.py)."""

    prefix: typing.ClassVar[str] = "c"
    prompt_id: str
    text: str
    model: str
    """Name of the policy that wrote it, or of its weights."""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason = "stop"
    sample_index: int = 0
    seed: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Record):
    """A comparison to be rated: two completions of one prompt, in canonical order (a, b)."""

    prefix: typing.ClassVar[str] = "t"
    prompt_id: str
    completion_a: str
    completion_b: str
    guideline_version: str = "none"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment(Record):
    """One label by one rater (person, simulated rater, or judge model), in the canonical frame of its task."""

    prefix: typing.ClassVar[str] = "j"
    task_id: str
    rater: str
    rater_kind: RaterKind
    verdict: Verdict
    swapped: bool = False
    """True when completion b was shown on the left. Says nothing where `has_side` is false."""
    strength: int = 0
    """-3 (a much better) to 3 (b much better); 0 when the rater gave none."""
    order: int = 0
    """Position of this judgment in the rater's own sequence; drift is measured along it."""
    guideline_version: str = "none"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""

    @property
    def has_side(self) -> bool:
        """Was the pair on a screen? A reply that the rater wrote (`meta.side` is none) stood on no side of it."""
        return self.meta.get("side") != NO_SIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Record):
    """An aggregated comparison, ready to train on: self-contained, with the votes behind it named."""

    prefix: typing.ClassVar[str] = "f"
    prompt: Messages
    chosen: str
    rejected: str
    p_chosen: float = 1.0
    """Posterior probability that `chosen` is better, in [0.5, 1]; 0.5 is a tie."""
    margin: float = 0.0
    """Required score distance in reward-model units; 0 is plain Bradley-Terry."""
    weight: float = 1.0
    is_tie: bool = False
    num_votes: int = 0
    """Votes behind it; 0 when the source does not say."""
    agreement: float | None = None
    """Share of votes for the majority; None when unknown."""
    prompt_id: str = ""
    chosen_id: str = ""
    rejected_id: str = ""
    judgments: tuple[str, ...] = ()
    """Ids of the judgments that were aggregated."""
    slice: str = "all"
    source: str = "unknown"
    split: Split = "train"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration(Record):
    """A conversation whose assistant turns are to be imitated. Plain text is one assistant message."""

    prefix: typing.ClassVar[str] = "d"
    messages: Messages
    slice: str = "all"
    source: str = "unknown"
    split: Split = "train"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Record):
    """One completion that somebody called good or bad (a thumb up or down): self-contained, ready to train on."""

    prefix: typing.ClassVar[str] = "l"
    prompt: Messages
    completion: str
    is_good: bool
    weight: float = 1.0
    slice: str = "all"
    source: str = "unknown"
    split: Split = "train"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLabels(Record):
    """A reply in steps, each called right or wrong: self-contained, ready to train a process-reward model on."""

    prefix: typing.ClassVar[str] = "k"
    prompt: Messages
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    """Probability that the step is right, for each step after the first `num_given`."""
    num_given: int = 0
    """Steps at the start that carry no label."""
    slice: str = "all"
    source: str = "unknown"
    split: Split = "train"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Record):
    """Raw output of one scorer for one completion (before normalisation and penalties)."""

    prefix: typing.ClassVar[str] = "s"
    completion_id: str
    scorer: str
    value: float
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult(Record):
    """One measured behaviour of one model, with interval and verdict against its pre-registered criterion."""

    prefix: typing.ClassVar[str] = "e"
    model: str
    behaviour: str
    before: float
    after: float
    effect: float
    low: float
    high: float
    num_prompts: int
    verdict: Literal["improved", "regressed", "unchanged", "inconclusive"]
    unit: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Record):
    """A policy that passed its gates, with the artifacts it was made from."""

    prefix: typing.ClassVar[str] = "v"
    name: str
    policy: str
    reward_model: str
    """Artifact id of the reward model that was active; empty when none was."""
    evaluation: str
    overrides: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


AnyRecord = TypeVar("AnyRecord", bound=Record)


def to_dict(record: Record) -> dict[str, Any]:
    """Turn a record into plain JSON-able data (tuples become lists)."""
    return typing.cast(dict[str, Any], _plain(record))


_SCALARS = frozenset({str, int, float, bool, type(None)})
_type_of: Callable[[object], type[object]] = type


def _plain(value: Any) -> Any:
    """Scalars by their exact type first: this runs for every token of every completion."""
    kind = _type_of(value)
    if kind in _SCALARS:
        return value
    if (names := _field_names(kind)) is not None:
        return {name: v if type(v := getattr(value, name)) in _SCALARS else _plain(v) for name in names}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in typing.cast(Mapping[Any, Any], value).items()}
    if isinstance(value, (tuple, list)):
        items = typing.cast(list[Any], value)
        return list(items) if _SCALARS.issuperset(map(type, items)) else [_plain(v) for v in items]
    return value


@functools.cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Names of the fields of a dataclass; None for another type."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def from_dict(cls: type[AnyRecord], row: Mapping[str, Any], *, where: str = "row") -> AnyRecord:
    """Build a record from a row, checking names and types.

    Args:
        where: `file:line`, used in error messages.
    Raises:
        DataError: an unknown or missing field, a wrong type, or a schema version newer than this code knows.
    """
    if not isinstance(row, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - rows come from files
        raise DataError(
            explain(
                where, row, "is not an object", expected=f"a {cls.__name__} with named fields", remedy="Fix the row"
            )
        )
    hints = _type_hints(cls)
    if _coerce(row.get("schema", SCHEMA_VERSION), int, f"{where}.schema") > SCHEMA_VERSION:
        raise DataError(explain(f"{where}.schema", row["schema"], "is newer than this version of Fairlead",
                                expected=f"<= {SCHEMA_VERSION}", remedy="Upgrade fairlead"))  # fmt: skip
    if not row.keys() <= hints.keys():
        key = next(key for key in row if key not in hints)
        raise DataError(explain(f"{where}.{key}", None, f"is not a field of {cls.__name__}{nearest(key, hints)}",
                                expected="one of " + ", ".join(hints), remedy="Rename or remove it"))  # fmt: skip
    values: dict[str, Any] = {}
    for name, read in _readers(cls).items():
        if name in row:
            found = read(row[name])
            values[name] = found if found is not _UNREAD else _coerce(row[name], hints[name], f"{where}.{name}")
        elif name in _required(cls):
            raise DataError(explain(f"{where}.{name}", None, "is missing", expected=f"a value for {cls.__name__}.{name}",
                                    remedy="Add the field"))  # fmt: skip
    return cls(**values)


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


@functools.cache
def _required(cls: type) -> frozenset[str]:
    """Fields without a default."""
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing)


_UNREAD = object()
"""A fast reader's answer to anything that is not exactly right; `_coerce` then converts it or names the fault."""


@functools.cache
def _readers(cls: type) -> dict[str, Callable[[Any], Any]]:
    """Fast readers of the fields, made once a class: types are not looked up for every value of a large file."""
    return {name: _reader(hint) for name, hint in _type_hints(cls).items()}


def _reader(hint: Any) -> Callable[[Any], Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return lambda value: value if type(value) is str and value in args else _UNREAD
    if origin in (types.UnionType, typing.Union):  # `Literal | None` is the second
        inner = _reader(args[0])
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return _read_messages if args[0] is Message else functools.partial(_read_list, args[0])
    if origin is not None:  # Mapping
        return lambda value: dict(typing.cast(dict[str, Any], value)) if type(value) is dict else _UNREAD
    if hint is float:
        return lambda value: value if type(value) is float and math.isfinite(value) else _UNREAD
    return lambda value: value if type(value) is hint else _UNREAD


def _read_list(kind: type, value: Any) -> Any:
    """A list whose items have exactly the type (which is str or int)."""
    items = typing.cast(list[Any], value if type(value) is list else [_UNREAD])
    return tuple(items) if {kind}.issuperset(map(type, items)) else _UNREAD


def _read_messages(value: Any) -> Any:
    found: list[Message] = []
    for row in typing.cast(list[Any], value if type(value) is list else [_UNREAD]):
        if type(row) is not dict:
            return _UNREAD
        fields = typing.cast(dict[str, Any], row)
        if fields.keys() != _MESSAGE_KEYS or fields["role"] not in _ROLES or type(fields["content"]) is not str:
            return _UNREAD
        found.append(Message(role=fields["role"], content=fields["content"]))
    return tuple(found)


_MESSAGE_KEYS, _ROLES = {"role", "content"}, typing.get_args(Role)


def _coerce(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            raise DataError(
                explain(
                    where,
                    value,
                    "is not allowed",
                    expected="one of " + ", ".join(map(str, args)),
                    remedy="Fix the value",
                )
            )
        return value
    if origin in (types.UnionType, typing.Union):  # `Literal | None` is the second
        return None if value is None else _coerce(value, args[0], where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise DataError(explain(where, value, "has the wrong type", expected="a list", remedy="Fix the value"))
        return tuple(_coerce(v, args[0], f"{where}[{i}]") for i, v in enumerate(typing.cast(list[Any], value)))
    if origin is not None:  # Mapping
        if not isinstance(value, Mapping):
            raise DataError(explain(where, value, "has the wrong type", expected="an object", remedy="Fix the value"))
        return dict(typing.cast(Mapping[str, Any], value))
    if not dataclasses.is_dataclass(hint):
        return _scalar(value, hint, where)
    return (
        _message(value, where)
        if typing.cast(object, hint) is Message
        else from_dict(typing.cast(Any, hint), value, where=where)
    )


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping) or set(typing.cast(Mapping[str, Any], value)) != {"role", "content"}:
        raise DataError(
            explain(
                where, typing.cast(object, value), "is not a message", expected="{role, content}", remedy="Fix the row"
            )
        )
    row = typing.cast(Mapping[str, Any], value)
    return Message(
        role=_coerce(row["role"], Role, f"{where}.role"), content=_coerce(row["content"], str, f"{where}.content")
    )


def _scalar(value: Any, hint: type, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < _MAX_WHOLE else math.inf
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise DataError(explain(where, value, "has the wrong type", expected=hint.__name__, remedy="Fix the value"))
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(explain(where, value, "is not finite", expected="a finite number", remedy="Fix the value"))
    return value


_MAX_WHOLE = 2**1023  # larger whole numbers do not fit a float
