"""JSONL for the fine-tuning services of model vendors: supervised and preference tuning.

These services refuse a file with unknown keys, so rows hold nothing else, and votes, posterior and provenance stand in a file beside,
line for line: `<name>.provenance.jsonl`.

Example:
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    {"input": {"messages": [...], "tools": [], "parallel_tool_calls": true}, "preferred_output": [...], "non_preferred_output": [...]}
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Row
from fairlead.core.records import Demonstration, Preference
from fairlead.core.streams import JsonLines
from fairlead.formats.base import Format, Item, Unusable, Values, WriteReport, mostly
from fairlead.formats.conversations import assistant, checked
from fairlead.formats.fields import mapping, messages
from fairlead.formats.provenance import provenance_columns
from fairlead.formats.trl import to_message


def preference_row(preference: Preference) -> dict[str, Any]:
    """One row for preference tuning.

    Raises:
        Unusable: a tie, which such a row cannot say.
    """
    if preference.is_tie or preference.p_chosen == 0.5:
        raise Unusable("a preferred output cannot be tied")
    return {
        "input": {"messages": [to_message(m) for m in preference.prompt], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [to_message(assistant(preference.chosen))],
        "non_preferred_output": [to_message(assistant(preference.rejected))],
    }


def supervised_row(record: Preference | Demonstration) -> dict[str, Any]:
    """One row for supervised tuning: a conversation, or the prompt with its chosen completion."""
    if isinstance(record, Demonstration):
        return {"messages": [to_message(m) for m in record.messages]}
    if record.is_tie:
        raise Unusable("a tie has no completion to imitate")
    return {"messages": [to_message(m) for m in (*record.prompt, assistant(record.chosen))]}


def provenance_path(path: Path | str) -> Path:
    """Where what the rows cannot say is written."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".jsonl") + ".provenance.jsonl")


def write_fine_tuning(path: Path | str, preferences: Iterable[Preference], *, is_supervised: bool) -> WriteReport:
    """Write rows and, line for line, their votes, posterior, margin, weight and provenance beside them.

    Raises:
        DataError: there was nothing that the format can carry; no file is left behind.
    """
    left_out: dict[str, int] = {}
    with JsonLines(path, is_optional=True) as rows, JsonLines(provenance_path(path), is_optional=True) as beside:
        for preference in preferences:
            try:
                found = supervised_row(checked(preference)) if is_supervised else preference_row(checked(preference))
            except Unusable as fault:
                left_out[str(fault)] = left_out.get(str(fault), 0) + 1
            else:
                rows.write(found)
                beside.write({"line": rows.num_rows, "id": preference.id} | provenance_columns(preference))
    if not rows.num_rows:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.items()) or "there were none"
        raise DataError(
            explain(
                path, None, f"would hold no row: {reasons}", expected="pairs with a winner", remedy="Collect more votes"
            )
        )
    return WriteReport(written=rows.num_rows, left_out=left_out)


def _read(row: Row) -> list[Item]:
    values = row.values
    prompt = messages(mapping(values.get("input"), "input").get("messages"), "messages")
    sides: list[str] = []
    for name in ("preferred_output", "non_preferred_output"):
        turns = messages(values.get(name), name)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise Unusable(f"{name} is not one assistant message")
        sides.append(turns[0].content)
    return [checked(Preference(prompt=prompt, chosen=sides[0], rejected=sides[1]))]


def _is_preference_row(values: Values) -> bool:
    return isinstance(values.get("input"), dict) and {"preferred_output", "non_preferred_output"} <= set(values)


FINE_TUNING = Format(
    name="fine_tuning", kind="preferences", detect=mostly(_is_preference_row), read=_read,
    doc="JSONL of vendors' preference tuning: `input.messages`, `preferred_output`, `non_preferred_output`.",
)  # fmt: skip
