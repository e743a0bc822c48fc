"""All known formats, and which of them a file is."""

import itertools
from pathlib import Path

from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.io import read_rows
from fairlead.formats.annotation_formats import ARGILLA, FAIRLEAD_ITEMS, LABEL_STUDIO, LABEL_STUDIO_MIN
from fairlead.formats.base import Format
from fairlead.formats.cells import decode
from fairlead.formats.comparisons import ARENA, ARENA_FLAGS, OPENAI_COMPARISONS
from fairlead.formats.fine_tuning import FINE_TUNING
from fairlead.formats.helpsteer import HELPSTEER2, HELPSTEER2_PREFERENCE, HELPSTEER3
from fairlead.formats.instructions import ALPACA, ALPACA_PREFERENCES, SHAREGPT, SHAREGPT_PREFERENCES
from fairlead.formats.labelled_pairs import ALPACA_EVAL, PKU_SAFERLHF, PKU_SAFERLHF_SAFER, SHP
from fairlead.formats.oasst import OASST
from fairlead.formats.oasst_messages import OASST_MESSAGES
from fairlead.formats.openai_ratings import OPENAI_AXIS, WEBGPT
from fairlead.formats.own import FAIRLEAD, FAIRLEAD_DEMONSTRATIONS, FAIRLEAD_LABELS, FAIRLEAD_PROMPTS, FAIRLEAD_STEPS
from fairlead.formats.steps import MATH_SHEPHERD, PRM800K, TRL_STEPWISE
from fairlead.formats.transcripts import HH, HH_RED_TEAM, NECTAR
from fairlead.formats.trl import TRL, TRL_IMPLICIT, TRL_UNPAIRED
from fairlead.formats.trl_language import TRL_MESSAGES, TRL_PROMPT, TRL_PROMPT_COMPLETION, TRL_TEXT
from fairlead.formats.ultrafeedback import ARGILLA_BINARIZED, ULTRAFEEDBACK, ULTRAFEEDBACK_BINARIZED
from fairlead.formats.votes import VOTES

SAMPLE_ROWS = 50

FORMATS: tuple[Format, ...] = (
    FAIRLEAD, FAIRLEAD_DEMONSTRATIONS, FAIRLEAD_LABELS, FAIRLEAD_PROMPTS, FAIRLEAD_STEPS,
    HH, HH_RED_TEAM, TRL, TRL_IMPLICIT, TRL_UNPAIRED, TRL_PROMPT_COMPLETION, TRL_MESSAGES, TRL_TEXT, TRL_PROMPT,
    ULTRAFEEDBACK, ULTRAFEEDBACK_BINARIZED, ARGILLA_BINARIZED, OASST, OASST_MESSAGES,
    ALPACA, ALPACA_PREFERENCES, SHAREGPT, SHAREGPT_PREFERENCES, OPENAI_COMPARISONS, OPENAI_AXIS, WEBGPT,
    HELPSTEER2, HELPSTEER2_PREFERENCE, HELPSTEER3, PKU_SAFERLHF, PKU_SAFERLHF_SAFER, SHP, NECTAR, ARENA, ARENA_FLAGS, ALPACA_EVAL,
    TRL_STEPWISE, PRM800K, MATH_SHEPHERD, VOTES,
    FAIRLEAD_ITEMS, LABEL_STUDIO, LABEL_STUDIO_MIN, ARGILLA, FINE_TUNING,
)  # fmt: skip


def find_format(name: str) -> Format:
    """Look a format up by name."""
    by_name = {known.name: known for known in FORMATS}
    if name not in by_name:
        raise ConfigError(explain("format", name, f"is not a known format{nearest(name, by_name)}",
                                  expected="one of " + ", ".join(by_name), remedy="Use one of these names"))  # fmt: skip
    return by_name[name]


def detect_format(path: Path | str) -> Format:
    """Tell which format a file is from its first rows.

    Raises:
        DataError: none fits or more than one does; the message lists the columns found and the known formats.
    """
    sample = [decode(row).values for row in itertools.islice(read_rows(path), SAMPLE_ROWS)]
    matching = [known for known in FORMATS if known.detect(sample)]
    if len(matching) == 1:
        return matching[0]
    columns = ", ".join(sorted({str(key) for values in sample for key in values}))
    fault = "fits several formats: " + ", ".join(f.name for f in matching) if matching else "is in no known format"
    raise DataError(explain(path, None, f"{fault} (columns found: {columns})", expected="one of " + ", ".join(f.name for f in FORMATS),
                            remedy="Name it with format: NAME"))  # fmt: skip
