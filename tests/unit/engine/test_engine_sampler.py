"""From logits to tokens: top-k and top-p by hand and as plain loops, ties, and the inverse of the distribution function."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.protocols import Sampling
from fairlead.engine.sampler import draw, process_logits, sample_uniforms
from naive import generate_naive


def probabilities(logits, *, seen=(), **options):
    is_seen = torch.tensor([[v in seen for v in range(len(logits))]])
    processed = process_logits(
        torch.tensor([logits], dtype=torch.float64), Sampling(max_new_tokens=1, **options), is_seen
    )
    return processed.softmax(-1)[0].tolist()


def logs(*shares):
    return [math.log(share) for share in shares]


@given(
    logits=st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.3, 1.1, 2.0]), min_size=2, max_size=8),
    temperature=st.sampled_from([0.5, 1.0, 2.0]), top_k=st.integers(0, 9), top_p=st.sampled_from([0.111, 0.35, 0.77, 0.93, 1.0]),
    min_p=st.sampled_from([0.0, 0.123, 0.51]), repetition_penalty=st.sampled_from([1.0, 1.7, 0.6]), seen=st.sets(st.integers(0, 7)),
)  # fmt: skip
def test_the_distribution_is_the_plain_loop(logits, **options):
    expected = generate_naive.distribution(logits, **options)
    assert probabilities(logits, **options) == pytest.approx(expected, abs=1e-9)


def test_top_k_by_hand():
    """Of 1/2, 1/4, 1/8, 1/8 the best two are kept: 2/3 and 1/3."""
    assert probabilities(logs(0.5, 0.25, 0.125, 0.125), top_k=2) == pytest.approx([2 / 3, 1 / 3, 0, 0])


def test_top_k_keeps_ties_with_the_last_one():
    assert probabilities([0.0, 1.0, 0.0, -5.0], top_k=2) == pytest.approx(
        [1 / (2 + math.e), math.e / (2 + math.e), 1 / (2 + math.e), 0]
    )


def test_top_p_keeps_the_token_that_crosses_the_line():
    """1/2 + 1/4 = 3/4 reaches 0.7, so two tokens stay; 0.76 needs the third."""
    logits = logs(0.125, 0.5, 0.25, 0.125)
    assert probabilities(logits, top_p=0.7) == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert probabilities(logits, top_p=0.76) == pytest.approx([1 / 7, 4 / 7, 2 / 7, 0]), "the lower id of two equals"
    assert probabilities(logits, top_p=0.01) == pytest.approx([0, 1, 0, 0])


def test_top_p_counts_what_top_k_left():
    """top-k 2 leaves 2/3 and 1/3; top-p 0.6 then keeps the first alone."""
    assert probabilities(logs(0.5, 0.25, 0.125, 0.125), top_k=2, top_p=0.6) == pytest.approx([1, 0, 0, 0])


def test_min_p_by_hand():
    """Of 1/2, 1/4, 1/8, 1/8 those with 0.4 of the best are the first two; temperature 2 makes the rest 1/2 of the best: all stay."""
    assert probabilities(logs(0.5, 0.25, 0.125, 0.125), min_p=0.4) == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert min(probabilities(logs(0.5, 0.25, 0.125, 0.125), min_p=0.4, temperature=2.0)) > 0


def test_a_repetition_penalty_by_hand():
    """Penalty 2 on logits 2 and -1 gives 1 and -2; an unseen 0 stays."""
    total = math.e + math.exp(-2) + 1
    assert probabilities([2.0, -1.0, 0.0], repetition_penalty=2.0, seen={0, 1}) == pytest.approx(
        [math.e / total, math.exp(-2) / total, 1 / total]
    )


def test_temperature_by_hand():
    """p = (4/5, 1/5): at temperature 1/2 the odds are squared, 16/17; at 2 they are rooted, 2/3."""
    assert probabilities(logs(0.8, 0.2), temperature=0.5) == pytest.approx([16 / 17, 1 / 17])
    assert probabilities(logs(0.8, 0.2), temperature=2.0) == pytest.approx([2 / 3, 1 / 3])


@given(logits=st.lists(st.floats(-5, 5), min_size=1, max_size=9), uniform=st.floats(0, 1, exclude_max=True))
def test_a_token_is_the_inverse_distribution_function(logits, uniform):
    found, logprob = draw(torch.tensor([logits], dtype=torch.float64), torch.tensor([uniform], dtype=torch.float64))
    shares = generate_naive.distribution(logits)
    expected = generate_naive.draw(shares, uniform)
    edges = np.cumsum(shares)
    if np.abs(edges - uniform).min() > 1e-9:
        assert found.item() == expected
    assert logprob.item() == pytest.approx(math.log(shares[found.item()]), abs=1e-9)


@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.5, 1 - 2**-53])
def test_dropped_tokens_are_never_drawn(uniform):
    """Also at both ends, where rounding could fall off the distribution function."""
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    token, logprob = draw(logits, torch.tensor([uniform], dtype=torch.float64))
    assert token.item() == (1 if uniform < 0.5 else 3)
    assert logprob.item() == pytest.approx(-math.log(2))


def test_greedy_takes_the_most_likely_and_reports_its_logprob():
    token, logprob = draw(torch.tensor([logs(0.2, 0.7, 0.1)]), None)
    assert (token.item(), logprob.item()) == (1, pytest.approx(math.log(0.7), abs=1e-6))


def test_uniforms_belong_to_seed_key_and_index():
    first = sample_uniforms(0, "p", 0, 8)
    assert ((first >= 0) & (first < 1)).all()
    assert (sample_uniforms(0, "p", 0, 20)[:8] == first).all(), "a longer limit does not change the beginning"
    others = [sample_uniforms(1, "p", 0, 8), sample_uniforms(0, "q", 0, 8), sample_uniforms(0, "p", 1, 8)]
    assert all((other != first).all() for other in others)
    assert abs(sample_uniforms(3, "p", 0, 10_000).mean() - 0.5) < 0.01
