"""Perplexity of a round's samples under the frozen models: equal to hand for a model of its own, and the reference's where they are one."""

import math
from pathlib import Path

import pytest
import torch
from online_example import make_loop, rows, run

import tiny_models


def test_a_base_model_that_is_the_reference_finds_what_the_reference_finds(tmp_path: Path) -> None:
    run(make_loop(tmp_path, "grpo", base=tiny_models.load("llama")))
    for row in rows(tmp_path):
        assert row["rl/base_perplexity"] == pytest.approx(row["rl/reference_perplexity"], rel=1e-5)


def test_the_base_model_is_asked_at_its_own_temperature_and_by_hand_says_the_same(tmp_path: Path) -> None:
    """exp of minus the mean log-probability of all sampled tokens, each row by itself in plain transformers."""
    loop = make_loop(tmp_path, "grpo", base=tiny_models.load("qwen2"), temperature=0.7)
    found = loop.collector.collect(loop.prompts, number=0, kl_coef=0.1, step=0, policy_version=0)
    plain, nats = tiny_models.load_plain("qwen2"), list[float]()
    for tree in found.trees:
        for branch in tree.branches:
            ids = torch.tensor([*tree.prompt_ids.tolist(), *branch.token_ids.tolist()])[None]
            with torch.no_grad():
                logprobs = plain(ids).logits[0].log_softmax(-1)
            at = torch.arange(len(tree.prompt_ids), ids.shape[1])
            nats += logprobs[at - 1, ids[0, at]].tolist()
    assert found.metrics["rl/base_perplexity"] == pytest.approx(math.exp(-sum(nats) / len(nats)), rel=1e-4)
    assert all("base_logprobs" not in branch.arrays for tree in found.trees for branch in tree.branches)
