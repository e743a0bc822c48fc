"""Reference logprobs on disk: the same numbers with and without the cache, a new name for whatever they depend on, damage is recomputed."""

import dataclasses

import numpy as np
import pytest
import torch
from training_examples import make_trees

import tiny_models
from fairlead.core.services import Services
from fairlead.train import reference
from fairlead.train.forward import PolicyLogprobs, annotate
from fairlead.train.reference import with_reference

TREES = make_trees("dpo")


def run(tmp_path, trees=TREES, model=None, temperature=1.0):
    model = model or tiny_models.load("llama")
    return with_reference(trees, model, cache=tmp_path / "cache", max_tokens=64, services=Services(work=tmp_path), title="test",
                          temperature=temperature)  # fmt: skip


def values(trees):
    return np.concatenate([b.arrays["ref_logprobs"] for t in trees for b in t.branches])


def names(tmp_path):
    return {p.name for p in (tmp_path / "cache").iterdir()}


def count_forwards(monkeypatch):
    calls = []
    whole = PolicyLogprobs.__call__
    monkeypatch.setattr(PolicyLogprobs, "__call__", lambda self, batch: calls.append(1) or whole(self, batch))
    return calls


def test_values_are_those_of_the_forward_and_the_second_time_nothing_runs(tmp_path, monkeypatch):
    plain = annotate(TREES, "ref_logprobs", PolicyLogprobs(tiny_models.load("llama")), max_tokens=10**6)
    first = run(tmp_path)
    np.testing.assert_allclose(values(first), values(plain), atol=2e-5)
    calls = count_forwards(monkeypatch)
    again = run(tmp_path)
    assert np.array_equal(values(again), values(first)) and calls == []
    without = with_reference(
        TREES, tiny_models.load("llama"), cache=None, max_tokens=64, services=Services(work=tmp_path), title="test"
    )
    assert np.array_equal(values(without), values(first)) and calls


def test_whatever_they_depend_on_changes_the_name(tmp_path):
    run(tmp_path)
    seen = names(tmp_path)
    other = tiny_models.load("llama")
    with torch.no_grad():
        other.module.get_submodule("model.norm").weight[0] += 1e-6
    branch = TREES[0].branches[0]
    masked = dataclasses.replace(branch, kept=np.arange(len(branch.token_ids)) > 0)
    changed = [
        {"model": other},
        {"temperature": 0.7},
        {"trees": TREES[1:]},
        {"trees": [dataclasses.replace(TREES[0], branches=(masked, *TREES[0].branches[1:])), *TREES[1:]]},
        {"trees": [dataclasses.replace(TREES[0], prompt_ids=TREES[0].prompt_ids[::-1].copy()), *TREES[1:]]},
    ]
    for options in changed:
        run(tmp_path, **options)
        new = names(tmp_path) - seen
        assert new, options
        seen |= new


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    first = run(tmp_path)
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(damage)
    assert np.array_equal(values(run(tmp_path)), values(first))


def test_the_folder_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "SHARD_TREES", 1)
    run(tmp_path)
    assert len(names(tmp_path)) == len(TREES)
    monkeypatch.setattr(reference, "MAX_BYTES", 0)
    run(tmp_path, temperature=0.5)
    assert names(tmp_path) == set()
