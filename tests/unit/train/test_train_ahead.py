"""Batches made ahead are the batches: same order, same bits, faults where they are taken, no thread left behind."""

import threading

import pytest
import torch
from training_examples import make_learner, make_trees, weights

from fairlead.train.ahead import one_ahead, prepare, prepared_batches
from fairlead.train.batches import EpochBatches
from fairlead.train.loop import run_loop

TREES = make_trees("sft", num=9)
CPU = torch.device("cpu")


def source(num_epochs=2):
    return EpochBatches(TREES, batch_size=4, num_epochs=num_epochs, seed=0)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("next-batch")]


def test_batches_made_by_a_thread_are_those_of_the_source_and_one_is_ahead():
    batches, made = source(), []

    def make(number):
        made.append(number)
        return prepare(batches[number], max_tokens=64)

    with one_ahead(make, range(1, len(batches))) as ahead:
        found = [next(ahead), next(ahead)]
        for _ in range(1000):
            if len(made) == 3:
                break
            threading.Event().wait(0.005)
        assert made == [1, 2, 3], "the third is made before it is asked for, the fourth is not"
        found += list(ahead)
    assert threads() == []
    for number, ready in enumerate(found, start=1):
        assert [id(t) for t in ready.trees] == [id(t) for t in batches[number]]
        assert [len(b.trees) for b in ready.microbatches] == [
            len(b.trees) for b in prepare(batches[number], max_tokens=64).microbatches
        ]
    assert [r.trees for r in found][-1] == batches[len(batches) - 1]


def test_a_fault_in_the_thread_is_raised_where_the_batch_is_taken():
    def make(number):
        if number == 1:
            raise ValueError("row 7")
        return prepare(TREES[:1], max_tokens=64)

    with pytest.raises(ValueError, match="row 7"), one_ahead(make, range(3)) as ahead:
        assert next(ahead).trees == TREES[:1]
        next(ahead)
    assert threads() == []


def test_ctrl_c_ends_the_thread():
    with pytest.raises(KeyboardInterrupt), one_ahead(lambda _: prepare(TREES[:1], max_tokens=64), range(5)) as ahead:
        next(ahead)
        raise KeyboardInterrupt
    assert threads() == []


def test_nothing_is_no_batch():
    with one_ahead(lambda _: prepare([], max_tokens=64), range(0)) as ahead:
        assert list(ahead) == []


def test_training_on_batches_made_ahead_gives_the_same_bits(monkeypatch):
    plain, ahead = make_learner("sft", num_steps=6), make_learner("sft", num_steps=6)
    run_loop(plain, source())
    with one_ahead(lambda n: prepare(source()[n], max_tokens=ahead.max_tokens), range(6)) as batches:
        for ready in batches:
            ahead.step(ready.trees, ready=ready)
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(ahead), strict=True))


def test_a_plan_of_another_budget_is_made_again():
    learner, other = make_learner("sft", max_tokens=40), make_learner("sft", max_tokens=40)
    stale = prepare(TREES, max_tokens=8192)
    assert len(stale.microbatches) == 1 < len(prepare(TREES, max_tokens=40).microbatches)
    assert learner.step(TREES, ready=stale)["loss"] == other.step(TREES)["loss"]
    assert all(torch.equal(a, b) for a, b in zip(weights(learner), weights(other), strict=True))


def test_on_a_cpu_batches_are_made_when_they_are_taken():
    taken = []

    class Source(EpochBatches):
        def __getitem__(self, step):
            taken.append(step)
            return super().__getitem__(step)

    with prepared_batches(
        Source(TREES, batch_size=4, num_epochs=1, seed=0), start=1, max_tokens=lambda: 64, device=CPU
    ) as batches:
        next(batches)
        assert taken == [1] and threads() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory belongs to CUDA")
def test_pinned_layouts_are_the_layouts():
    plain, pinned = prepare(TREES, max_tokens=64), prepare(TREES, max_tokens=64, is_pinned=True)
    for a, b in zip(plain.microbatches, pinned.microbatches, strict=True):
        assert torch.from_numpy(b.layout.token_ids).is_pinned()
        assert (
            a.layout.token_ids.tolist() == b.layout.token_ids.tolist()
            and a.layout.kept_source.tolist() == b.layout.kept_source.tolist()
        )
