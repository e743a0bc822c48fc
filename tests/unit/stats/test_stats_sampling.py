import itertools

import numpy as np
import pytest

from fairlead.core.errors import DataError
from fairlead.stats.sampling import (
    choose_pairs,
    design_weights,
    inclusion_probabilities,
    mean_over_all,
    pair_scores,
    shrunk_disagreement,
    systematic_sample,
    total_over_all,
)


def test_scores_by_hand():
    """Uncertainty .84 at p = .7; one vote each: q = 2/4, so 1; slice `a` rated twice, `b` once: coverage 2/3 and 1."""
    scores = pair_scores(p_first=[0.7, 0.5], votes=[[1, 1], [2, 0]], slices=["a", "b"], rated=["a", "a", "b", "other"])
    assert scores == pytest.approx([4 * 0.7 * 0.3 * 1 * (1 + 1) / (1 + 2), 1 * 4 * 0.75 * 0.25 * 1])
    assert pair_scores(slices=["a", "a"]) == pytest.approx([1, 1])


def test_probabilities_add_up_and_are_proportional_below_one():
    found = inclusion_probabilities(np.array([8.0, 1.0, 1.0, 2.0]), 2)
    assert found == pytest.approx([1, 0.25, 0.25, 0.5])
    assert inclusion_probabilities(np.zeros(4), 2) == pytest.approx([0.5] * 4)
    assert inclusion_probabilities(np.array([1.0, 0.0]), 1).min() > 0


def test_the_systematic_sample_takes_each_item_with_its_probability():
    """Exact: over all starts, which matter only between the fractional parts of the ends of the stretches."""
    inclusion = np.array([0.9, 0.3, 0.5, 0.25, 0.05])
    for order in (np.arange(5), np.array([3, 0, 4, 2, 1])):
        cuts = np.unique(np.concatenate([[0.0, 1.0], np.cumsum(inclusion[order]) % 1]))
        found = np.zeros(5)
        for low, high in itertools.pairwise(cuts):
            taken = systematic_sample(inclusion, start=(low + high) / 2, order=order)
            assert len(set(taken.tolist())) == 2
            found[taken] += high - low
        assert found == pytest.approx(inclusion)


def test_estimates_are_unbiased_over_all_batches_of_a_small_pool():
    """Exact expectation: all starts of the active arm times all random arms; the sum of y / pi averages to the true sum."""
    scores, y = np.array([5.0, 1.0, 2.0, 1.0, 0.5, 0.5]), np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    num_active, num_random = 2, 2
    active = inclusion_probabilities(scores, num_active)
    pi = active + (1 - active) * num_random / (6 - num_active)
    cuts = np.unique(np.concatenate([[0.0, 1.0], np.cumsum(active) % 1]))
    expected, seen = 0.0, np.zeros(6)
    for low, high in itertools.pairwise(cuts):
        first = systematic_sample(active, start=(low + high) / 2, order=np.arange(6))
        rest = [i for i in range(6) if i not in first]
        arms = list(itertools.combinations(rest, num_random))
        for arm in arms:
            batch = [*first.tolist(), *arm]
            expected += (high - low) / len(arms) * total_over_all(y[batch], pi[batch])
            seen[batch] += (high - low) / len(arms)
    assert seen == pytest.approx(pi)
    assert expected == pytest.approx(y.sum())


def test_a_batch_has_its_random_arm_and_its_probabilities():
    scores = np.random.default_rng(0).random(500)
    chosen = choose_pairs(scores, num_pairs=51, seed=1)
    assert len(set(chosen.pairs.tolist())) == 51
    assert chosen.is_random.sum() == 11  # a fifth of 51, rounded up
    assert chosen.inclusion.sum() == pytest.approx(51)
    assert chosen.inclusion.min() > 0
    again = choose_pairs(scores, num_pairs=51, seed=1)
    assert (again.pairs == chosen.pairs).all()
    everything = choose_pairs(scores, num_pairs=500, seed=1)
    assert everything.inclusion == pytest.approx(np.ones(500))


def test_weights_undo_the_choice_of_difficult_pairs():
    """Raters agree on easy pairs only: the plain share among chosen pairs is far off, the weighted one is not, and its interval covers."""
    rng = np.random.default_rng(5)
    p = rng.random(2000)
    agrees = (np.abs(p - 0.5) + 0.1 * rng.normal(size=2000) > 0.2).astype(float)
    truth, weighted, plain, covered = agrees.mean(), [], [], 0
    for seed in range(200):
        chosen = choose_pairs(pair_scores(p_first=p), num_pairs=200, seed=seed)
        found = mean_over_all(agrees[chosen.pairs], chosen.inclusion[chosen.pairs], num_pairs=2000)
        weighted.append(found.value)
        plain.append(agrees[chosen.pairs].mean())
        covered += found.low <= truth <= found.high
    assert abs(np.mean(plain) - truth) > 0.05
    assert np.mean(weighted) == pytest.approx(truth, abs=4 * np.std(weighted) / 200**0.5)
    assert covered >= 180


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(DataError, match=r"random_share=0\.1 leaves figures"):
        choose_pairs([1.0] * 10, num_pairs=5, seed=0, random_share=0.1)
    with pytest.raises(DataError, match="cannot be chosen from 3 pairs"):
        choose_pairs([1.0] * 3, num_pairs=4, seed=0)
    with pytest.raises(DataError, match="scores cannot be used"):
        choose_pairs([np.nan, 1.0], num_pairs=1, seed=0)
    with pytest.raises(DataError, match="inclusion cannot be used"):
        total_over_all([1.0], [0.0])
    assert mean_over_all([], [], num_pairs=3).note == "no observations"


def test_disagreement_of_pairs_like_these():
    """0 of 0 is a half, 3 of 8 is 4/10; times uncertainty 1."""
    differ = shrunk_disagreement([0, 3], [0, 8])
    assert differ == pytest.approx([0.5, 0.4])
    assert pair_scores(p_first=[0.5, 0.5], disagreement=differ) == pytest.approx([0.5, 0.4])
    with pytest.raises(DataError):
        pair_scores(disagreement=[1.5])


def test_weights_of_batches_by_hand():
    """Batch 1: two rated of two with pi 1/2, batch 2: one rated of two with pi 1/4. n = 3; (2/3)/(1/2) + 1/3 = 5/3, and (1/3)/(1/4)/(1/2) = 8/3."""
    assert design_weights([1, 1, 2], [0.5, 0.5, 0.25], drawn={1: 2, 2: 2}) == pytest.approx([5 / 3, 5 / 3, 8 / 3])
    assert design_weights([4, 4], [0.2, 0.2], drawn={4: 2}) == pytest.approx([5, 5])
    for bad in (
        {"batches": [1], "inclusion": [0.0], "drawn": {1: 1}},
        {"batches": [1, 1], "inclusion": [1, 1], "drawn": {1: 1}},
    ):
        with pytest.raises(DataError):
            design_weights(bad["batches"], bad["inclusion"], drawn=bad["drawn"])


def test_batches_that_follow_what_was_seen_estimate_the_total_without_bias():
    """Three batches of 6 of 40 pairs; the second and third seek pairs like those whose value was 1, so plain means are far off."""
    rng = np.random.default_rng(0)
    group = np.arange(40) % 4
    values = (rng.random(40) < np.array([0.9, 0.6, 0.3, 0.1])[group]).astype(float)
    estimates, plain = [], []
    for seed in range(1500):
        left, seen, pairs, batch, pi = np.arange(40), np.zeros(4), [], [], []
        for number in range(3):
            chosen = choose_pairs(1 + 20 * seen[group[left]], num_pairs=6, seed=10 * seed + number)
            pairs += list(left[chosen.pairs])
            batch += [number] * 6
            pi += list(chosen.inclusion[chosen.pairs])
            np.add.at(seen, group[pairs], values[pairs])
            left = np.setdiff1d(left, pairs)
        weights = design_weights(batch, pi, drawn=dict.fromkeys(range(3), 6))
        estimates.append(weights @ values[pairs])
        plain.append(40 * values[pairs].mean())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - values.sum()) < 4 * error < 0.8
    assert np.mean(plain) - values.sum() > 10 * error
