"""Causal language models: loading, attention over trees, logprobs without logits, heads, adapters, checkpoints."""
