"""Stage: reward models and their normalisation; gold rewards of controlled experiments."""
