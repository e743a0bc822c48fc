"""What the lead sees of the votes: figures with intervals, by slice and by rater, kept for a minute.

verdicts -> sheet (columns of numbers) -> readings (agreement, raters, flow, labels) -> core.summary charts and tables -> pages
"""
