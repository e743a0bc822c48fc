"""Lists and objects that a file carries as text: CSV has no other way, and some JSONL does it too.

A cell becomes data again where its column is known to hold data, or where it plainly is a conversation. All other text stays
text, also when it looks like JSON: a completion may be JSON.
"""

import ast
import io
import re
import tokenize
import warnings
from typing import Any

from fairlead.core.errors import DataError
from fairlead.core.io import Row, parse_json

NESTED = frozenset(
    {
        "all_preferences_unprocessed", "answers", "completions", "conversations", "conversation_a", "conversation_b", "extra",
        "individual_preference", "info", "labels", "messages", "summaries", "summary",
    }
)  # fmt: skip
"""Columns that hold a list or an object in every format that has them."""

_MAX_CHARS = 2**20
"""Of a Python literal, whose parser takes a hundred times its size in memory."""
_TURNS = re.compile(r"""\s*\[\s*\{\s*(['"])(role|content|from|value|type|text)\1\s*:""")
_PRINTED = re.compile(r"""\s*(\[\s*)*(\{\s*)?(['"]|True\b|False\b)""")
_TURN_KEYS = ({"role", "content"}, {"from", "value"})
_OBJECT_KEYS = (*_TURN_KEYS, {"role", "text"}, {"full_text"})


def decode(row: Row) -> Row:
    """The row with its nested cells as data; the same row when it has none."""
    found = {name: data for name, value in row.values.items() if (data := _data(name, value)) is not None}
    return Row(row.where, row.number, row.values | found) if found else row


def is_undecoded(text: str) -> bool:
    """Does a text begin like a list of messages? It could not be parsed then, and is no completion."""
    return _TURNS.match(text) is not None


def _data(name: str, value: Any) -> Any:
    if not isinstance(value, str) or value[:64].lstrip()[:1] not in ("[", "{"):
        return None
    parsed = _parsed(value)
    if not isinstance(parsed, (list, dict)):
        return None
    return (
        parsed if name in NESTED or _is_turns(parsed) or _is_pairs(name, parsed) or _is_solved(name, parsed) else None
    )


def _parsed(text: str) -> Any:
    """JSON, or else what Python, pandas and numpy print ({'role': 'user'}, None, True, nan, array([...]))."""
    try:
        return parse_json(text, "cell")
    except DataError:
        pass
    if len(text) > _MAX_CHARS or _PRINTED.match(text) is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes in what turns out to be plain text
            return ast.literal_eval(_Literal().visit(ast.parse(_with_commas(text.strip()), mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return None


def _with_commas(text: str) -> str:
    """Put the comma between an object that ends and one that begins, which numpy does not print."""
    lines = io.StringIO(text).readlines()
    before = ""
    missing: list[tuple[int, int]] = []
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if before == "}" and token.string == "{":
            missing.append(token.start)
        before = token.string if token.string.strip() else before
    for line, column in reversed(missing):
        lines[line - 1] = lines[line - 1][:column] + "," + lines[line - 1][column:]
    return "".join(lines)


class _Literal(ast.NodeTransformer):
    """Replaces what tables print inside of a literal: missing numbers, and nested arrays."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(None) if node.id in ("nan", "NaN", "NA", "null") else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        is_array = isinstance(node.func, ast.Name) and node.func.id == "array" and len(node.args) == 1
        return self.visit(node.args[0]) if is_array else node


def _is_turns(data: Any) -> bool:
    if isinstance(data, dict):
        return any(keys <= set(data) for keys in _OBJECT_KEYS)
    return bool(data) and all(isinstance(turn, dict) and any(keys <= set(turn) for keys in _TURN_KEYS) for turn in data)


def _is_solved(name: str, data: Any) -> bool:
    """The `question` and `label` of PRM800K, the `input` of fine-tuning files; in other data columns of these names are plain text."""
    key = {"question": "problem", "label": "steps", "input": "messages"}.get(name)
    return key is not None and isinstance(data, dict) and key in data


def _is_pairs(name: str, data: Any) -> bool:
    """The `history` of Alpaca, a list of [instruction, reply]; in other data a column of that name is plain text."""
    return (
        name == "history" and isinstance(data, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in data)
    )
