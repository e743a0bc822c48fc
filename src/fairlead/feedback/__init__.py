"""Stage: judgments of completions by raters (human, simulated) and judges.

`tasks.py` pairs completions and deals the pairs to raters, `simulated.py` is a panel with a known truth, `round.py` says how a
round went and watches for side bias, `stage.py` runs it. Judgments of people come through the same records.
"""
