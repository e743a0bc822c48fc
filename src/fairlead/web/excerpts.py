"""The first words of a text for lists and tables, where markup would be in the way: what its Markdown says, without its marks.

Example:
    excerpt("Write **me** a `median`, please.")   # 'Write me a median, please.'
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markdown_it.token import Token

from fairlead.store.annotation.database import Rows
from fairlead.web.contents import content_of
from fairlead.web.rendering import parse, show_hidden

NUM_CHARS = 110
MAX_READ = 2_000
"""Characters of a text that are looked at; what is cut off there is far behind what is shown."""


@functools.lru_cache(maxsize=4096)
def excerpt(text: str) -> str:
    """The first words in one line, at most `NUM_CHARS` characters. Plain text: a page escapes it as it does any other."""
    start = text[:MAX_READ]
    words = " ".join(" ".join(_words(parse(start))).split())
    found = show_hidden(words or " ".join(start.split()))  # a text of nothing but marks stands as it was written
    return found if len(found) <= NUM_CHARS else f"{found[: NUM_CHARS - 3]}..."


def excerpt_of_prompt(record: Mapping[str, Any]) -> str:
    """Of what was asked last. Args: record: a stored prompt."""
    return excerpt(record["messages"][-1]["content"])


def excerpt_of_item(rows: Rows, item_id: str) -> str:
    """Of what was asked last in an item."""
    return excerpt(content_of(rows, item_id).prompt.messages[-1].content)


def _words(blocks: Sequence[Token]) -> Iterator[str]:
    for block in blocks:
        yield _inline(block.children) if block.children is not None else block.content


def _inline(children: Sequence[Token]) -> str:
    return "".join(
        " "
        if child.type in ("softbreak", "hardbreak")
        else _inline(child.children)
        if child.children
        else child.content
        for child in children
    )
