"""PPO and DPO reach the exact optimum of a problem small enough to enumerate, and a wrong sign does not."""

import math
from itertools import pairwise

import pytest
import torch

from fairlead.algos import DPO, IPO, PPO, get_algorithm
from fairlead.algos.advantages import gae, token_rewards
from fairlead.algos.dpo import DPOConfig, ExoConfig, IPOConfig
from fairlead.algos.kl import kl_k1
from fairlead.algos.ppo import PPOConfig
from fairlead.algos.spec import GroupBatch, RolloutBatch
from naive.enumerable import (
    LENGTH,
    NUM_PREFIXES,
    PREFIX_ROWS,
    kl,
    make_problem,
    sequence_logprobs,
    tilted,
    token_logprobs,
)

_PROBLEM = make_problem()
_NUM_SEQUENCES = len(PREFIX_ROWS)


def _collect(logits, values, *, num_samples, kl_sign, generator):
    """Sampled tokens with their rewards and advantages, as policies/ does it; nothing is whitened."""
    rows = torch.multinomial(sequence_logprobs(logits).exp(), num_samples, replacement=True, generator=generator)
    prefixes = PREFIX_ROWS[rows].flatten()
    index = torch.arange(num_samples).repeat_interleave(LENGTH)
    old_logprobs = token_logprobs(logits)[rows].flatten()
    penalty = kl_k1(old_logprobs, token_logprobs(_PROBLEM.ref_logits)[rows].flatten())
    rewards = token_rewards(_PROBLEM.rewards[rows], penalty, kl_coef=kl_sign * _PROBLEM.beta, sequence_index=index)
    advantages, returns = gae(rewards, values[prefixes], gamma=1.0, lam=0.95, sequence_index=index)
    return rows, prefixes, index, old_logprobs, advantages, returns


class _Apart:
    """A table of logits and a table of values."""

    def __init__(self):
        self.logits = _PROBLEM.ref_logits.clone().requires_grad_()
        self.values = torch.zeros(NUM_PREFIXES, dtype=torch.float64, requires_grad=True)
        self.parameters = [self.logits, self.values]

    def read(self):
        """[21, 4] logits and [21] values."""
        return self.logits, self.values


class _OneTrunk:
    """Hidden states of width 8 for every prefix, and two heads on them: logits that begin as the reference's, and values that begin at 0."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        head = torch.randn(4, 8, generator=generator, dtype=torch.float64)
        self.trunk = (_PROBLEM.ref_logits @ torch.linalg.pinv(head).T).requires_grad_()
        self.head, self.value = head.requires_grad_(), torch.zeros(8, dtype=torch.float64, requires_grad=True)
        self.parameters = [self.trunk, self.head, self.value]

    def read(self):
        """[21, 4] logits and [21] values."""
        return self.trunk @ self.head.T, self.trunk @ self.value


def _train_ppo(
    *, kl_sign=1, advantage_sign=1, num_rollouts=200, num_samples=512, learning_rate=0.2, model=None, value_coef=1.0
):
    """Log-probabilities of the 64 sequences after training from the reference."""
    generator = torch.Generator().manual_seed(0)
    model = model or _Apart()
    optimizer = torch.optim.Adam(model.parameters, lr=learning_rate, eps=1e-5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=2 * num_rollouts)
    config = PPOConfig(value_coef=value_coef, value_clip=None)
    for _ in range(num_rollouts):
        with torch.no_grad():
            rows, prefixes, index, old_logprobs, advantages, returns = _collect(
                *model.read(), num_samples=num_samples, kl_sign=kl_sign, generator=generator
            )
        for _ in range(2):
            logits, values = model.read()
            batch = RolloutBatch(
                logprobs=token_logprobs(logits)[rows].flatten(),
                old_logprobs=old_logprobs,
                advantages=advantage_sign * advantages,
                sequence_index=index,
                num_sequences=num_samples,
                values=values[prefixes],
                returns=returns,
            )
            optimizer.zero_grad()
            (PPO.loss(batch, config).total / PPO.count(batch, config)).backward()
            optimizer.step()
            schedule.step()
    return sequence_logprobs(model.read()[0].detach())


def _pair_batch(logits, first, second, **labels):
    """Pairs of whole sequences, tokens and all."""
    rows = torch.stack([first, second], dim=1).flatten()
    num_pairs = len(first)
    return GroupBatch(
        sequence_index=torch.arange(2 * num_pairs).repeat_interleave(LENGTH),
        group_index=torch.arange(num_pairs).repeat_interleave(2),
        ranks=torch.arange(2 * num_pairs) % 2,
        num_groups=num_pairs,
        logprobs=token_logprobs(logits)[rows].flatten(),
        ref_logprobs=token_logprobs(_PROBLEM.ref_logits)[rows].flatten(),
        **labels,
    )


def _train_dpo(algorithm, config, *, labels):
    """Log-probabilities of the 64 sequences at the minimum of the loss over all pairs."""
    first, second = torch.triu_indices(_NUM_SEQUENCES, _NUM_SEQUENCES, offset=1)
    logits = _PROBLEM.ref_logits.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=400, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        batch = _pair_batch(logits, first, second, **labels(first, second))
        loss = algorithm.loss(batch, config).total / algorithm.count(batch, config)
        loss.backward()
        return loss

    optimizer.step(closure)
    return sequence_logprobs(logits.detach())


def _true_labels(first, second):
    return {"p_chosen": torch.sigmoid(_PROBLEM.rewards[first] - _PROBLEM.rewards[second])}


def _sampled_labels(num_votes):
    """Votes on random pairs; the share of votes is the label, their number the weight."""

    def labels(first, second):
        generator = torch.Generator().manual_seed(1)
        pairs = torch.randint(len(first), (num_votes,), generator=generator)
        p = _true_labels(first, second)["p_chosen"]
        wins = torch.rand(num_votes, generator=generator, dtype=torch.float64) < p[pairs]
        votes = torch.bincount(pairs, minlength=len(first)).double()
        won = torch.bincount(pairs, weights=wins.double(), minlength=len(first))
        return {"p_chosen": won / votes.clamp_min(1), "weights": votes}

    return labels


@pytest.fixture(scope="module")
def ppo_logprobs():
    return _train_ppo()


@pytest.fixture(scope="module")
def dpo_logprobs():
    return _train_dpo(DPO, DPOConfig(beta=_PROBLEM.beta), labels=_true_labels)


def _best_objective():
    return float(_PROBLEM.beta * _PROBLEM.log_z)


def test_the_problem_has_its_closed_form():
    """J* = beta log Z; KL* = E*[r] / beta - log Z; and no random policy does better."""
    best = _PROBLEM.best_logprobs
    assert float(best.exp().sum()) == pytest.approx(1.0)
    assert float(_PROBLEM.objective(best)) == pytest.approx(_best_objective())
    expected_reward = float((best.exp() * _PROBLEM.rewards).sum())
    assert float(kl(best, _PROBLEM.ref_logprobs)) == pytest.approx(
        expected_reward / _PROBLEM.beta - float(_PROBLEM.log_z)
    )
    for seed in range(20):
        other = sequence_logprobs(make_problem(seed).ref_logits)
        gap = _best_objective() - float(_PROBLEM.objective(other))
        assert gap == pytest.approx(_PROBLEM.beta * float(kl(other, best)))


def test_ppo_reaches_the_optimum(ppo_logprobs):
    assert float(kl(ppo_logprobs, _PROBLEM.best_logprobs)) < 5e-3
    assert abs(float(_PROBLEM.objective(ppo_logprobs)) - _best_objective()) < 0.01


def test_ppo_reaches_it_with_both_heads_on_one_trunk():
    """One loss, one set of hidden states; before anything is written the value is J* = beta log Z, what the optimum is worth."""
    model = _OneTrunk()
    logprobs = _train_ppo(model=model, value_coef=0.1, learning_rate=0.05)
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) < 5e-3
    assert abs(float(_PROBLEM.objective(logprobs)) - _best_objective()) < 0.01
    assert float(model.read()[1][0].detach()) == pytest.approx(_best_objective(), abs=0.1)


@pytest.mark.parametrize("wrong", [{"kl_sign": -1}, {"advantage_sign": -1}, {"kl_sign": 0}])
def test_ppo_with_a_wrong_sign_does_not(wrong):
    """A KL that is paid out, an advantage upside down, no KL at all."""
    logprobs = _train_ppo(**wrong, num_rollouts=100)
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) > 0.3
    assert _best_objective() - float(_PROBLEM.objective(logprobs)) > 0.1


def test_dpo_reaches_the_optimum(dpo_logprobs):
    assert float(kl(dpo_logprobs, _PROBLEM.best_logprobs)) < 1e-4
    assert float(_PROBLEM.objective(dpo_logprobs)) == pytest.approx(_best_objective(), abs=1e-4)


def test_the_implicit_reward_of_dpo_is_the_reward_up_to_beta_log_z(dpo_logprobs):
    offset = _PROBLEM.beta * (dpo_logprobs - _PROBLEM.ref_logprobs) - _PROBLEM.rewards
    assert float(offset.std()) < 1e-3
    assert float(offset.mean()) == pytest.approx(-_best_objective(), abs=1e-3)


def test_exo_has_the_same_optimum():
    """It compares the same preferences by the KL the other way round."""
    config = ExoConfig(beta=_PROBLEM.beta, smoothing=1e-9)
    logprobs = _train_dpo(get_algorithm("exo"), config, labels=_true_labels)
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) < 1e-4


def test_ipo_has_it_when_preferences_are_linear_in_the_reward():
    """p = 1/2 + tau (r_i - r_j) / beta makes its goals (2p - 1) / (2 tau) the log-ratio differences of the optimum."""
    tau = 0.02

    def labels(first, second):
        return {"p_chosen": 0.5 + tau * (_PROBLEM.rewards[first] - _PROBLEM.rewards[second]) / _PROBLEM.beta}

    logprobs = _train_dpo(IPO, IPOConfig(beta=tau, average=False), labels=labels)
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) < 1e-4


@pytest.mark.parametrize(
    ("divergence", "slope"),
    [
        ("forward_kl", lambda u: 1 - 1 / u),
        ("js", lambda u: torch.log(2 * u / (1 + u))),
        ("alpha", lambda u: 2 * (1 - u**-0.5)),
    ],
)
def test_dpo_solves_the_problem_of_its_divergence(divergence, slope):
    """At the optimum of E[r] - beta D_f the slope f'(u) is (r - c) / beta for every sequence, with the same c."""
    config = DPOConfig(beta=_PROBLEM.beta, divergence=divergence)
    logprobs = _train_dpo(DPO, config, labels=_true_labels)
    offset = _PROBLEM.beta * slope((logprobs - _PROBLEM.ref_logprobs).exp()) - _PROBLEM.rewards
    assert float(offset.std()) < 1e-3
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) > 1e-2


def test_dpo_with_labels_upside_down_does_not():
    def flipped(first, second):
        return {"p_chosen": 1 - _true_labels(first, second)["p_chosen"]}

    logprobs = _train_dpo(DPO, DPOConfig(beta=_PROBLEM.beta), labels=flipped)
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) > 0.3


def test_more_votes_bring_dpo_closer():
    """The gap to J* falls about as 1 / votes (ten times the votes: between 5 and 20 times closer)."""
    gaps = [
        _best_objective()
        - float(_PROBLEM.objective(_train_dpo(DPO, DPOConfig(beta=_PROBLEM.beta), labels=_sampled_labels(num_votes))))
        for num_votes in (2_000, 20_000)
    ]
    assert gaps[0] > gaps[1] > 0
    assert 5 < gaps[0] / gaps[1] < 20


def test_nobody_is_above_the_frontier(ppo_logprobs, dpo_logprobs):
    """Rewards at equal KL are never above those of reference exp(r / b) / Z; PPO and DPO lie on it."""
    coefficients = torch.logspace(1, -2, 400, dtype=torch.float64)
    frontier = [tilted(_PROBLEM, float(b)) for b in coefficients]
    distances = torch.stack([kl(point, _PROBLEM.ref_logprobs) for point in frontier])
    rewards = torch.stack([(point.exp() * _PROBLEM.rewards).sum() for point in frontier])
    for logprobs in (ppo_logprobs, dpo_logprobs):
        distance, reward = kl(logprobs, _PROBLEM.ref_logprobs), (logprobs.exp() * _PROBLEM.rewards).sum()
        above = int(torch.searchsorted(distances, distance))
        assert float(rewards[above - 1]) - 5e-3 < float(reward) <= float(rewards[above]) + 1e-9
        assert float(_PROBLEM.objective(logprobs)) <= _best_objective() + 1e-9
    assert _PROBLEM.objective(dpo_logprobs) >= _PROBLEM.objective(ppo_logprobs) - 1e-9


def _margins(algorithm, config, p, *, learning_rate, num_steps=80):
    """The margin h of one pair along plain gradient descent from the reference."""
    h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    seen = []
    for _ in range(num_steps):
        batch = GroupBatch(
            sequence_index=torch.tensor([0, 1]),
            group_index=torch.tensor([0, 0]),
            ranks=torch.tensor([0, 1]),
            num_groups=1,
            logprobs=torch.cat([h, torch.zeros(1, dtype=torch.float64)]),
            ref_logprobs=torch.zeros(2, dtype=torch.float64),
            p_chosen=torch.tensor([p], dtype=torch.float64),
        )
        (gradient,) = torch.autograd.grad(algorithm.loss(batch, config).total, h)
        h = (h - learning_rate * gradient).detach().requires_grad_()
        seen.append(h.item())
    return seen


@pytest.mark.parametrize(("p", "tau"), [(1.0, 0.1), (1.0, 0.5), (0.8, 0.1), (0.8, 0.5)])
def test_ipo_has_a_finite_margin_even_for_certain_labels(p, tau):
    """(2p - 1) / (2 tau): 5, 1, 3, 0.6."""
    margins = _margins(IPO, IPOConfig(beta=tau), p, learning_rate=0.25)
    assert margins[-1] == pytest.approx((2 * p - 1) / (2 * tau), abs=1e-3)


def test_dpo_has_one_only_for_uncertain_labels():
    """At p = 0.8: logit(0.8) / 0.1 = 13.86. At p = 1 the margin grows for ever."""
    config = DPOConfig(beta=0.1)
    assert _margins(DPO, config, 0.8, learning_rate=300.0)[-1] == pytest.approx(math.log(4) / 0.1, abs=1e-3)
    margins = _margins(DPO, config, 1.0, learning_rate=300.0)
    assert all(later > earlier for earlier, later in pairwise(margins))
    assert margins[-1] > 3 * 13.86
