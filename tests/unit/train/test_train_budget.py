"""Memory that runs out: the step is made again with half the budget, and is the step that this budget makes."""

import contextlib

import numpy as np
import pytest
import torch
from training_examples import METHODS, make_learner, make_trees, weights

from fairlead.core.errors import Interrupted
from fairlead.core.services import Services
from fairlead.models.out_of_memory import is_out_of_memory
from fairlead.text import Branch, Tree
from fairlead.train.budget import smaller_budget
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop


def row(tree):
    """Tokens of the larger row that a tree takes: its own, or that of its mismatched completions."""
    return max(tree.num_tokens, len(tree.prompt_ids) + sum(len(b.token_ids) for b in tree.mismatched))


class Small:
    """A layer beside a model whose forward, or backward, has no room for rows beyond `limit` tokens. Counts what it was asked for."""

    def __init__(self, learner, limit, *, error=MemoryError, in_backward=False):
        self.limit, self.error, self.in_backward, self.sizes = limit, error, in_backward, []
        for model in learner.models.trunks():
            model.causal_lm.get_input_embeddings().register_forward_hook(self)

    def __call__(self, _module, _inputs, output):
        size = output[..., 0].numel()
        self.sizes.append(size)
        if self.in_backward and output.requires_grad:
            output.register_hook(lambda _grad: self.check(size))
        elif not self.in_backward:
            self.check(size)

    def check(self, size):
        if size > self.limit:
            raise self.error(f"DefaultCPUAllocator: can't allocate memory: {size} rows")


ERRORS = (MemoryError, torch.OutOfMemoryError, RuntimeError)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("in_backward", [False, True])
def test_a_step_that_ran_out_of_memory_is_the_step_of_the_smaller_budget(method, in_backward):
    """Bit for bit; after it the budget stays, so the next step needs no second attempt."""
    batches = [make_trees(method, seed=step) for step in range(2)]
    largest = max(row(t) for b in batches for t in b)
    total = sum(t.num_tokens for t in batches[0])
    learner, said = make_learner(method), []
    learner.say = said.append
    Small(learner, max(largest, total // 3), in_backward=in_backward)
    first = learner.step(batches[0])
    assert first["train/out_of_memory"] >= 1 and learner.max_tokens < total and learner.is_lowered
    second = learner.step(batches[1])
    plain = make_learner(method, max_tokens=learner.max_tokens)
    expected = [plain.step(batch) for batch in batches]
    assert {k: v for k, v in first.items() if k != "train/out_of_memory"} == expected[0]
    if "train/out_of_memory" not in second:
        assert second == expected[1]
        assert all(torch.equal(a, b) for a, b in zip(weights(learner), weights(plain), strict=True))
    assert len(said) == 1 and "step 1" in said[0]


@pytest.mark.parametrize("error", ERRORS)
def test_every_way_to_say_it_is_understood(error):
    learner = make_learner("sft")
    Small(learner, 40, error=error)
    assert learner.step(make_trees("sft"))["train/out_of_memory"] == 2.0 and learner.max_tokens <= 40


def test_other_errors_pass_as_they_are():
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError("out of memory"))
    learner = make_learner("sft")
    Small(learner, 0, error=ValueError)
    with pytest.raises(ValueError, match="allocate"):
        learner.step(make_trees("sft"))
    assert not learner.is_lowered


def test_a_tree_that_does_not_fit_alone_ends_the_run_and_leaves_the_weights():
    learner = make_learner("sft")
    Small(learner, 1)
    before = weights(learner)
    with pytest.raises(MemoryError):
        learner.step(make_trees("sft"))
    assert learner.max_tokens == max(t.num_tokens for t in make_trees("sft")), "never below the largest tree"
    assert all(p.grad is None for p in learner.parameters)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))


def test_the_next_budget_by_hand():
    """Trees of 10, 6, 4: a row of 20 becomes rows of 10 (10 and 6 + 4), and then every half is smaller than the largest tree.

    Of seven trees of 10 the row of 70 becomes rows of 35 (three trees), then of 15 (one tree), for the largest row has 30.
    """
    trees = [
        Tree(prompt_ids=np.zeros(0, dtype=np.int64), branches=(Branch(token_ids=np.ones(n, dtype=np.int64)),))
        for n in (10, 6, 4)
    ]
    assert [smaller_budget(trees[:1] * 7, max_tokens=n) for n in (8192, 35, 15)] == [35, 15, None]
    assert smaller_budget(trees, max_tokens=8192) == 10
    assert smaller_budget(trees, max_tokens=10) is None
    assert smaller_budget(trees[1:], max_tokens=8192) == 6
    assert smaller_budget(trees[:1], max_tokens=8192) is None


def test_a_lowered_budget_is_kept_by_a_resumed_run(tmp_path):
    def go(learner, folder, **options):
        services = Services(work=folder / "work", **options)
        session = Session(
            learner, services=services, title="test", metric="sft/loss", metrics_path=folder / "metrics.jsonl"
        )
        with session:
            run_loop(learner, [make_trees("sft", seed=step) for step in range(4)], [session.after_step])

    whole, first, second = (make_learner("sft", num_steps=4) for _ in range(3))
    Small(whole, 60)
    go(whole, tmp_path / "a")
    Small(first, 60)
    with contextlib.suppress(Interrupted):
        go(first, tmp_path / "b", should_stop=lambda: first.step_number == 2)
    go(second, tmp_path / "b")  # has all the memory it wants, and is the same run
    assert whole.is_lowered and second.max_tokens == whole.max_tokens < 8192
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
