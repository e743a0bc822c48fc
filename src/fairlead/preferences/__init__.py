"""Stage: votes to preferences with probabilities, and readings of how far raters agree."""
