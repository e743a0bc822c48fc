"""Reference logprobs on disk: the same numbers with and without the cache, a new name for whatever they depend on, damage is recomputed."""

import dataclasses

import numpy as np
import pytest
import torch
from training_examples import make_trees

import tiny_models
from fairlead.core import cache
from fairlead.core.services import Services
from fairlead.train import reference
from fairlead.train.forward import PolicyLogprobs, annotate
from fairlead.train.reference import Reference

TREES = make_trees("dpo")


def run(tmp_path, trees=TREES, model=None, temperature=1.0):
    model = model or tiny_models.load("llama")
    return make(model, tmp_path, temperature=temperature).annotate(trees)


def make(model, tmp_path, **options):
    options = {
        "cache": tmp_path / "cache",
        "max_tokens": 64,
        "services": Services(work=tmp_path),
        "title": "test",
    } | options
    return Reference(model, **options)


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
    without = make(tiny_models.load("llama"), tmp_path, cache=None).annotate(TREES)
    assert np.array_equal(values(without), values(first)) and calls


def test_whatever_they_depend_on_changes_the_name(tmp_path):
    run(tmp_path)
    seen = names(tmp_path)
    other = tiny_models.load("llama")
    with torch.no_grad():
        other.module.get_submodule("model.norm").weight[0] += 1e-6
    branch = TREES[0].branches[0]
    masked = dataclasses.replace(branch, kept=np.arange(len(branch.token_ids)) > 0)
    rounded = tiny_models.load("llama")
    rounded.set_precision("bf16")
    changed = [
        {"model": other},
        {"model": rounded},
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_parameters", {"rope_type": "default", "rope_theta": 77.0}),
        ("rms_norm_eps", 0.5),
        ("sliding_window", 3),
        ("num_key_value_heads", 1),
    ],
)
def test_a_config_that_computes_something_else_with_the_same_weights_changes_the_name(key, value, tmp_path):
    salts = {reference._salt(model, 1.0) for model in (tiny_models.load("llama"), changed(key, value))}
    assert len(salts) == 2


def changed(key, value):
    model = tiny_models.load("llama")
    setattr(model.config, key, value)
    return model


def test_other_ways_to_compute_change_the_name_and_another_place_does_not(monkeypatch):
    model = tiny_models.load("llama")
    seen = {reference._salt(model, 1.0)}
    model.config._name_or_path, model.config.dtype = "elsewhere", torch.bfloat16
    assert {reference._salt(model, 1.0)} == seen
    model.why_padded = "keeps state"
    seen.add(reference._salt(model, 1.0))
    monkeypatch.setattr(reference.transformers, "__version__", "0")
    seen.add(reference._salt(model, 1.0))
    monkeypatch.setattr(reference, "_forward_code", lambda: "edited")
    seen.add(reference._salt(model, 1.0))
    assert len(seen) == 4


def test_the_weights_are_hashed_once_for_all_trees_of_a_stage(tmp_path, monkeypatch):
    calls, salt = [], reference._salt
    monkeypatch.setattr(reference, "_salt", lambda *given: calls.append(1) or salt(*given))
    made = make(tiny_models.load("llama"), tmp_path)
    made.annotate(TREES[:2]), made.annotate(TREES[2:])
    assert calls == [1]


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    first = run(tmp_path)
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(damage)
    assert np.array_equal(values(run(tmp_path)), values(first))


def test_the_folder_stays_small_but_for_what_the_run_itself_uses(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "SHARD_TREES", 1)
    run(tmp_path)
    first = names(tmp_path)
    assert len(first) == len(TREES)
    monkeypatch.setattr(cache, "MAX_BYTES", 0)
    run(tmp_path, temperature=0.5)
    assert len(names(tmp_path)) == len(TREES) and not names(tmp_path) & first


def test_the_trees_are_a_view_that_holds_no_numbers(tmp_path):
    found = run(tmp_path)
    assert found[3].branches[0].arrays["ref_logprobs"].dtype == np.float32
    assert found[3] is not found[3] and len(found[:2]) == 2 and len(found) == len(TREES)
    assert (
        "ref_logprobs" not in TREES[3].branches[0].arrays
        or TREES[3].branches[0].arrays is not found[3].branches[0].arrays
    )
    assert list((tmp_path).glob("tmp*")) == [], "the file has no name"


def test_mismatched_completions_are_kept_too_and_leave_the_branches_alone(tmp_path, monkeypatch):
    model, trees = tiny_models.load("llama"), make_trees("kto")
    asides = [dataclasses.replace(t, branches=t.mismatched, mismatched=()) for t in trees]
    expected = values(annotate(asides, "ref_logprobs", PolicyLogprobs(model), max_tokens=10**6))
    calls = count_forwards(monkeypatch)
    for num_calls in (True, False):
        calls.clear()
        found = make(model, tmp_path).annotate_mismatched(trees)
        np.testing.assert_allclose(
            values([dataclasses.replace(t, branches=t.mismatched) for t in found]), expected, atol=2e-5
        )
        assert [t.branches for t in found] == [t.branches for t in trees] and bool(calls) == num_calls


def test_no_trees_are_no_trees(tmp_path):
    assert len(run(tmp_path, trees=[])) == 0
