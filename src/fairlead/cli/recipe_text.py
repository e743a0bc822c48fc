"""A recipe as text in which every key says its unit and why it has this value.

Example:
    tree = {"seed": Key(0, "everything random derives from it"),
            "text": Section("how conversations become tokens", {"max_length": Key(512, "tokens, prompt plus completion")})}
    print(render(tree, head=["A first recipe."]))
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fairlead.core.config import parse_yaml

WIDTH = 120
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_GLUE = "\0"  # stands for a space that is no place to break a line
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")


@dataclass(frozen=True, slots=True)
class Key:
    """A value with its comment; a list of Keys is written one a line."""

    value: Any
    why: str


@dataclass(frozen=True, slots=True)
class Section:
    """Keys below a key, with a comment for the whole."""

    why: str
    keys: "Tree"


Tree: TypeAlias = Mapping[str, Key | Section]


def render(tree: Tree, *, head: Iterable[str] = (), tail: Iterable[str] = ()) -> str:
    """YAML with comments.

    Args:
        head: comment lines before the first key; an empty one is an empty comment line.
        tail: comment lines after the last key.
    """
    lines = [*_comments(head, indent=""), *_tree_lines(tree, indent="")]
    ending = [*_comments(tail, indent="")]
    return "\n".join([*lines, *([""] if ending else []), *ending]) + "\n"


def flow(value: Any) -> str:
    """One value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(v) for v in value) + "]"
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    text = str(value)
    is_plain = _PLAIN.fullmatch(text) is not None and parse_yaml(text, where="value") == text
    return text if is_plain else "".join(_escaped(c) for c in json.dumps(text, ensure_ascii=False))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _number(value: float) -> str:
    """As people write it: 2.0e-5, and with the point that makes it a number to every YAML reader."""
    mantissa, mark, exponent = repr(float(value)).partition("e")
    if not mark:
        return mantissa
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"


def _tree_lines(tree: Tree, *, indent: str) -> Iterator[str]:
    for index, (name, node) in enumerate(tree.items()):
        if isinstance(node, Section):
            if not indent and index:
                yield ""
            yield from _line(f"{name}:", node.why, indent=indent)
            yield from _tree_lines(node.keys, indent=indent + "  ")
        elif _is_block(node.value):
            yield from _line(f"{name}:", node.why, indent=indent)
            for item in node.value:
                yield from _line(f"- {flow(item.value)}", item.why, indent=indent + "  ")
        else:
            yield from _line(f"{name}: {flow(node.value)}", node.why, indent=indent)


def _is_block(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(v, Key) for v in value)
        and bool(value)
    )


def _line(text: str, why: str, *, indent: str) -> Iterator[str]:
    """The comment behind the value where both fit on a line, else above it."""
    line = f"{indent}{text}  # {_printable(why)}" if why else f"{indent}{text}"
    if len(line) <= WIDTH:
        yield line
        return
    yield from _comments([why], indent=indent)
    glued = _QUOTED.sub(lambda match: match[0].replace(" ", _GLUE), text)
    parts = textwrap.wrap(glued, WIDTH, initial_indent=indent, subsequent_indent=indent + "    ", break_long_words=False, break_on_hyphens=False,
                          replace_whitespace=False)  # fmt: skip
    yield from (part.replace(_GLUE, " ") for part in parts)


def _comments(lines: Iterable[str], *, indent: str) -> Iterator[str]:
    for line in map(_printable, lines):
        for part in textwrap.wrap(line, WIDTH - len(indent) - 2, break_on_hyphens=False) or [""]:
            yield f"{indent}# {part}".rstrip()


def _printable(text: str) -> str:
    """One line without control characters, which YAML refuses in comments too."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
