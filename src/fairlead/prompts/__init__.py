"""Stage: where prompts come from. Sources, de-duplication, contamination, splits, coverage.

Open stage.py first: `PromptsConfig` is its recipe section, `run` does the work, `GATES` are what it is judged by.
"""

from fairlead.prompts.stage import GATES, PromptsConfig, run

__all__ = ["GATES", "PromptsConfig", "run"]
