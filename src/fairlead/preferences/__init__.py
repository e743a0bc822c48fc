"""Stage: votes to preferences with probabilities, and readings of how far raters agree.

`aggregate.py` turns votes into probabilities, `raters.py` and `agreement.py` say how far to trust them, `counts.py` how many are
enough, `pairs.py` makes and splits the records, `votes.py` is behind `fairlead votes`, `stage.py` runs it.
"""
