"""Stage: reward models, their normalisation, and the shaping of rewards."""
