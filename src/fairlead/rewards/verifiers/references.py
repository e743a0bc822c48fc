"""What a prompt carries for its verifier: the right answer, a pattern, a schema, tests, in fields of `meta`.

A field that is absent or null means that the verifier does not apply to the prompt. A field of the wrong kind is a fault of the data,
told with the prompt's place before anything is sampled.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.core.errors import DataError, explain
from fairlead.core.records import Prompt


def place(prompt: Prompt, field: str) -> str:
    """Where a field stands, for messages: file, row and name."""
    row = prompt.meta.get("row")
    return f"{prompt.source}{f':{row}' if row is not None else ''} ({prompt.id}) meta.{field}"


def fault(prompt: Prompt, field: str, wrong: str, *, expected: str) -> DataError:
    """The error of a field that cannot be used."""
    return DataError(
        explain(place(prompt, field), prompt.meta.get(field), wrong, expected=expected, remedy="Fix the row")
    )


def read_answers(prompt: Prompt, field: str) -> tuple[str, ...]:
    """The right answers of a prompt, any of which will do; empty when it has none.

    Raises:
        DataError: neither text nor number nor a list of these.
    """
    value = prompt.meta.get(field)
    if value is None:
        return ()
    items: Sequence[Any] = value if isinstance(value, (list, tuple)) else (value,)
    if not items or not all(
        isinstance(i, (str, int, float)) and not isinstance(i, bool) and str(i).strip() for i in items
    ):
        raise fault(prompt, field, "is no answer", expected="text, a number, or a list of these")
    return tuple(str(item) for item in items)


def read_mapping(prompt: Prompt, field: str) -> Mapping[str, Any] | None:
    """An object of a prompt's meta; None when it has none.

    Raises:
        DataError: something else than an object.
    """
    value = prompt.meta.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise fault(prompt, field, "is not an object", expected="an object with named fields")
    return value


def read_text(prompt: Prompt, field: str) -> str | None:
    """A text of a prompt's meta; None when it has none.

    Raises:
        DataError: something else than text.
    """
    value = prompt.meta.get(field)
    if value is not None and not isinstance(value, str):
        raise fault(prompt, field, "is not text", expected="text")
    return value
