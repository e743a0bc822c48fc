"""Stage: gates, model card and the released model folder."""
