"""NEFTune: the size of its noise, that it is a function of seed, step and tokens, and that nothing but training forwards has it."""

import numpy as np
import pytest
import torch
from training_examples import make_learner, make_trees, weights

import tiny_models
from fairlead.text import pack_trees
from fairlead.train.noise import EmbeddingNoise, Neftune, noisy_embeddings

TREES = make_trees("sft")


def noise(*, alpha=5.0, seed=0, step=0):
    return EmbeddingNoise(settings=Neftune(alpha=alpha, seed=seed), step=step)


def learner_with(neftune, **options):
    learner = make_learner("sft", **options)
    learner.neftune = neftune
    return learner


def test_the_noise_is_uniform_and_as_large_as_the_paper_says():
    """alpha / sqrt(L d) bounds it; U(-1, 1) has variance 1/3, so the noise of a conversation has expected squared norm alpha^2 / 3."""
    for tree in TREES:
        found = noise(alpha=5.0).of(tree, width=2048, device=torch.device("cpu"))
        bound = 5.0 / np.sqrt(tree.num_tokens * 2048)
        assert found.shape == (tree.num_tokens, 2048)
        assert 0.999 * bound < float(found.abs().max()) <= bound
        assert float(found.square().sum()) == pytest.approx(25 / 3, rel=0.05)
        assert abs(float(found.mean())) < 0.02 * bound


def test_the_noise_is_a_function_of_seed_step_and_tokens():
    def draw(tree, **options):
        return noise(**options).of(tree, width=8, device=torch.device("cpu"))

    state = torch.random.get_rng_state()
    assert torch.equal(draw(TREES[0]), draw(TREES[0]))
    assert not torch.equal(draw(TREES[0]), draw(TREES[0], seed=1))
    assert not torch.equal(draw(TREES[0]), draw(TREES[0], step=1))
    same_length = [t for t in TREES[1:] if t.num_tokens == TREES[0].num_tokens] or [TREES[1]]
    rows = min(same_length[0].num_tokens, TREES[0].num_tokens)
    assert not torch.equal(draw(TREES[0])[:rows], draw(same_length[0])[:rows])
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mamba"])
def test_what_the_embedding_layer_gives_is_moved_by_the_noise(kind):
    """Also where every sequence is a padded row of its own: the logprobs are those of noise added by hand, tree by tree."""
    model = tiny_models.load(kind)
    table = model.causal_lm.get_input_embeddings()

    def by_hand(tree):
        added = noise().of(tree, width=table.weight.shape[1], device=model.device)
        handle = table.register_forward_hook(lambda _m, _i, output: output + added.view(output.shape))
        found = model.logprobs(pack_trees([tree])).logprobs
        handle.remove()
        return found

    layout = pack_trees(TREES)
    with torch.no_grad():
        clean = model.logprobs(layout).logprobs
        with noisy_embeddings(model, noise(), trees=TREES, layout=layout):
            found = model.logprobs(layout).logprobs
        expected = torch.cat([by_hand(tree) for tree in TREES])
        assert torch.equal(model.logprobs(layout).logprobs, clean), "the next forward has none"
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert float((found - clean).abs().max()) > 1e-3


def test_the_token_budget_does_not_change_a_noisy_step():
    runs = []
    for max_tokens in (8192, 40, 1):
        learner = learner_with(Neftune(alpha=5.0, seed=0), dtype=torch.float64, max_tokens=max_tokens)
        losses = [learner.step(make_trees("sft", seed=step))["loss"] for step in range(3)]
        runs.append((losses, weights(learner)))
    for losses, found in runs[1:]:
        assert losses == pytest.approx(runs[0][0], rel=1e-6)
        for a, b in zip(found, runs[0][1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    clean = make_learner("sft", dtype=torch.float64)
    assert clean.step(make_trees("sft", seed=0))["loss"] != pytest.approx(runs[0][0][0], abs=1e-4)


def test_a_resumed_noisy_run_is_the_run_that_never_stopped():
    batches = [make_trees("sft", seed=step) for step in range(4)]
    whole, first, second = (learner_with(Neftune(alpha=5.0, seed=0)) for _ in range(3))
    for batch in batches:
        whole.step(batch)
    for batch in batches[:2]:
        first.step(batch)
    second.load_state(*first.state())
    for batch in batches[2:]:
        second.step(batch)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_methods_that_learn_no_tokens_take_no_noise():
    learner = make_learner("dpo")
    learner.neftune = Neftune(alpha=5.0, seed=0)
    with pytest.raises(AssertionError, match="learn tokens"):
        learner.step(make_trees("dpo"))
