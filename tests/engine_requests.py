"""Requests for tests of the engine, and their samples by name."""

import numpy as np

import tiny_models
from fairlead.core.protocols import GenerateRequest
from fairlead.engine.local import LocalEngine

KINDS = tiny_models.KINDS
IN_KERNEL = ("llama", "qwen2", "mistral", "gemma2", "gemma3", "qwen3", "phi3")
"""What the C++ kernel computes; test_engine_kernel holds it."""


def some_requests(*, num=7, num_samples=2, seed=0, longest=12):
    rng = np.random.default_rng(seed)
    prompts = [(1, *map(int, rng.integers(6, tiny_models.VOCABULARY, rng.integers(0, longest)))) for _ in range(num)]
    return [GenerateRequest(key=f"p{i}", token_ids=ids, num_samples=num_samples) for i, ids in enumerate(prompts)]


def generate(model, requests, sampling, **options):
    """Samples by (key, sample index)."""
    found = list(LocalEngine(model, **options).generate(requests, sampling))
    by_name = {(s.key, s.sample_index): s for s in found}
    assert len(by_name) == len(found) == sum(r.num_samples for r in requests)
    return by_name
