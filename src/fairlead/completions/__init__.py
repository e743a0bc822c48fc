"""Stage: k completions for each prompt from one policy."""
