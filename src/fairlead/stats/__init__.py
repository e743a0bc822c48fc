"""Numbers about people and models: agreement, aggregation of votes, intervals, calibration, diversity, drift. numpy and scipy only.

Start with `votes.votes_from_rows` for what raters said and `intervals.Interval` for what every figure looks like. Nothing is
re-exported: each module is one question, and its name says which.
"""
