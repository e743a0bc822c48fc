"""Stage: what changed, with intervals, against criteria that were frozen before training."""
