"""Stage: judgments of completions by raters (human, simulated) and judges."""
