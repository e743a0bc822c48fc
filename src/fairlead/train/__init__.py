"""The one training loop: batches, forward, optimiser, preflight, hooks."""
