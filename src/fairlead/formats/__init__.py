"""Readers and writers of other people's preference, demonstration, prompt and vote files: detected, streamed, rejects counted.

A format is a `Format` in the file of its noun and one line in `registry.py`. Readers give records and account for every row
(`reading.report`); a faulty row goes to the rejects with a reason in fixed words. See docs/formats.md.
"""

from fairlead.formats.base import (
    Format,
    Item,
    Kind,
    LeftOut,
    Neighbours,
    Pairing,
    ReadReport,
    Unusable,
    Vote,
    WriteReport,
    mostly,
)
from fairlead.formats.reading import (
    Reading,
    prompt_part,
    read_annotations,
    read_demonstrations,
    read_labels,
    read_preferences,
    read_prompts,
    read_steps,
)
from fairlead.formats.registry import FORMATS, detect_format, find_format
from fairlead.formats.vendor import read_mapping
from fairlead.formats.votes import read_votes
from fairlead.formats.writing import write_preferences

__all__ = [
    "FORMATS",
    "Format",
    "Item",
    "Kind",
    "LeftOut",
    "Neighbours",
    "Pairing",
    "ReadReport",
    "Reading",
    "Unusable",
    "Vote",
    "WriteReport",
    "detect_format",
    "find_format",
    "mostly",
    "prompt_part",
    "read_annotations",
    "read_demonstrations",
    "read_labels",
    "read_mapping",
    "read_preferences",
    "read_prompts",
    "read_steps",
    "read_votes",
    "write_preferences",
]
