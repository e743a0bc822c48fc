"""Stage: where prompts come from. Sources, de-duplication, contamination, splits, coverage."""
