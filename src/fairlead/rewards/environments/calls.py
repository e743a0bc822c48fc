"""Calls of tools in a turn: `<name>what it is asked</name>`, and the answer to all of them.

Example:
    find_calls("So <calculator>2 + 2</calculator>", "calculator")      # ["2 + 2"]
"""

import re
from collections.abc import Callable

from fairlead.core.protocols import Observation


class ToolError(Exception):
    """A call that cannot be answered as it was asked; the policy reads why."""


def find_calls(text: str, tag: str) -> list[str]:
    """What stands between the tags, in order; a tag that is not closed calls nothing."""
    return [match[1] for match in re.finditer(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)]


def answer_calls(text: str, tag: str, call: Callable[[str], str]) -> Observation | None:
    """The answers to all calls of one tool, a line each or more; None when the turn has none.

    Args:
        call: what was asked -> answer; raises ToolError.
    """
    lines: list[str] = []
    num_errors = 0
    calls = find_calls(text, tag)
    for asked in calls:
        try:
            lines.append(call(asked))
        except ToolError as error:
            lines.append(f"error: {error}")
            num_errors += 1
    return Observation(text="\n".join(lines), num_calls=len(calls), num_errors=num_errors) if calls else None
