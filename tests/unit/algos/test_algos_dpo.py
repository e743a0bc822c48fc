"""The DPO family: links, soft labels, options."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pair_examples import mean_loss, metric_means, padded_pairs, pair, turned

from fairlead.algos import ALGORITHMS, DPO, IPO, get_algorithm
from fairlead.algos.checks import check_algorithm
from fairlead.algos.dpo import (
    ApoConfig,
    DiscopopConfig,
    DPOConfig,
    ExoConfig,
    FlipConfig,
    IPOConfig,
    NcaConfig,
    PairOptions,
    SppoConfig,
)
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import GroupBatch
from fairlead.core.errors import ConfigError
from naive import dpo_naive as naive

_MARGINS = st.floats(-30, 30)
_LABELS = st.floats(0, 1)
_ALL = {algorithm.name: algorithm for algorithm in ALGORITHMS if issubclass(algorithm.config, PairOptions)}
_VARIANTS = pytest.mark.parametrize("name", list(_ALL))


def _with(batch, **changed):
    fields = {field: getattr(batch, field) for field in batch.__dataclass_fields__}
    return GroupBatch(**fields | changed)


def _sides(name, a, b, *, p=1.0, **settings):
    """Loss of a pair whose log-ratios are a and b."""
    algorithm = _ALL[name]
    batch = pair([a], [b], p_chosen=torch.tensor([p], dtype=torch.float64))
    return mean_loss(algorithm, batch, algorithm.config(**settings))


def test_a_pair_by_hand():
    """Chosen log-ratios 1 + 2, rejected 1: h = 2; -log sigma(0.1 * 2) = log(1 + e^-0.2) = 0.598139."""
    assert mean_loss(DPO, pair([1.0, 2.0], [1.0]), DPOConfig(beta=0.1)) == pytest.approx(0.598139, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("hinge", {"beta": 0.5}, 0.0),  # 1 - 0.5 * 2
        ("hinge", {"beta": 0.25}, 0.5),
        ("sppo", {"beta": 0.5}, (3 - 1) ** 2 + (1 + 1) ** 2 - 2),  # goals +-1
        ("apo_zero", {"beta": 1.0}, 0.0474259 + 0.7310586),  # sigma(-3) + sigma(1)
        ("apo_down", {"beta": 1.0}, 0.9525741 + 0.1192029),  # sigma(3) + sigma(-2)
        ("nca", {"beta": 1.0}, 0.0485874 + (3.0485874 + 1.3132617) / 2),
        ("discopop", {"beta": 1.0, "tau": 1.0}, 0.1192029 * 0.1269280 + 0.8807971 * 0.1353353),  # x = 2, exp(-2)
        ("exo", {"beta": 1.0, "smoothing": 0.25}, 0.8807971 * 0.1607541 + 0.1192029 * -0.7406336),
    ],
)
def test_links_by_hand(name, settings, expected):
    """Log-ratios 3 and 1. sigma(2) = 0.8807971: exo is 0.88 log(0.88 / 0.75) + 0.12 log(0.12 / 0.25)."""
    assert _sides(name, 3.0, 1.0, **settings) == pytest.approx(expected, abs=1e-6)


def test_ipo_averages_over_tokens_unless_told_otherwise():
    """Goal 1 / (2 * 0.5) = 1. Means 1.5 and 1: (0.5 - 1)^2 = 0.25. Sums 3 and 1: (2 - 1)^2 = 1."""
    batch = pair([1.0, 2.0], [1.0])
    assert mean_loss(IPO, batch, IPOConfig(beta=0.5)) == pytest.approx(0.25)
    assert mean_loss(IPO, batch, IPOConfig(beta=0.5, average=False)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("dpo", {"beta": 0.3}, math.log(2)),
        ("cdpo", {"flip_rate": 0.2}, math.log(2)),
        ("robust", {"flip_rate": 0.2}, math.log(2)),
        ("ipo", {"beta": 0.1}, 25.0),  # 1 / (4 beta^2)
        ("hinge", {}, 1.0),
        ("nca", {}, 2 * math.log(2)),
        ("sppo", {}, 0.0),
        ("apo_zero", {}, 1.0),
        ("apo_down", {}, 1.0),
        ("discopop", {}, (math.log(2) + 1) / 2),
    ],
)
def test_the_loss_at_the_reference(name, settings, expected):
    """The same whatever the labels. Any other number at step 0 means that policy and reference differ."""
    batch = random_batch("groups", seed=3)
    at_reference = _with(batch, ref_logprobs=batch.logprobs)
    config = _ALL[name].config(**settings)
    assert mean_loss(_ALL[name], at_reference, config) == pytest.approx(expected, abs=1e-5)


@given(
    seed=st.integers(0, 2**31), beta=st.floats(0.01, 2), flip_rate=st.floats(0, 0.4), small=st.floats(0.01, 0.4),
    correction=st.sampled_from(["none", "average", "excess"]), ld_alpha=st.floats(0, 0.99),
)  # fmt: skip
def test_the_losses_agree_with_the_loops_over_padded_rows(seed, beta, flip_rate, small, correction, ld_alpha):
    batch = random_batch("groups", seed=seed)
    own = {"cdpo": {"flip_rate": flip_rate}, "robust": {"flip_rate": flip_rate}, "exo": {"smoothing": small},
           "discopop": {"tau": small}}  # fmt: skip
    options = {"average": correction == "average", "ld_alpha": ld_alpha if correction == "excess" else 1.0}
    expected = dict.fromkeys(_ALL, 0.0)
    for p, weight, rows in padded_pairs(batch, "logprobs", "ref_logprobs"):
        shorter = min(sum(rows[side][2]) for side in ("chosen", "rejected"))
        a, b = (
            naive.log_ratio(*rows[side], average=options["average"], shorter=shorter, ld_alpha=options["ld_alpha"])
            for side in ("chosen", "rejected")
        )
        for name in _ALL:
            expected[name] += weight * naive.pair_loss(name, a, b, p, beta=beta, **own.get(name, {}))
    for name, algorithm in _ALL.items():
        config = algorithm.config(beta=beta, **options, **own.get(name, {}))
        total = expected[name] / float(batch.weights.sum())
        assert mean_loss(algorithm, batch, config) == pytest.approx(total, rel=1e-6, abs=1e-9), name


@given(
    seed=st.integers(0, 2**31), divergence=st.sampled_from(["reverse_kl", "forward_kl", "js", "alpha"]),
    alpha=st.floats(0.05, 0.95), nll_coef=st.floats(0.1, 2), average=st.sampled_from(["token", "sum"]),
    weighting=st.sampled_from(["off", "policy", "aligned"]),
)  # fmt: skip
def test_the_options_agree_with_the_loops(seed, divergence, alpha, nll_coef, average, weighting):
    batch, expected = random_batch("groups", seed=seed), 0.0
    for p, weight, rows in padded_pairs(batch, "logprobs", "ref_logprobs", "collision_logprobs"):
        a, b = (
            naive.divergence_slope(naive.log_ratio(*rows[side][:2], rows[side][3]), divergence=divergence, alpha=alpha)
            for side in ("chosen", "rejected")
        )
        (chosen, _, alone_c, mask_c), (rejected, _, alone_r, mask_r) = rows["chosen"], rows["rejected"]
        factor = 1.0
        if weighting != "off":
            share = float(weighting == "aligned")
            factor = naive.policy_weight(*(
                [x - share * y for x, y, keep in zip(row, alone, mask, strict=True) if keep]
                for row, alone, mask in ((chosen, alone_c, mask_c), (rejected, alone_r, mask_r))
            ))  # fmt: skip
        nll = naive.imitation_loss(chosen, rejected, mask_c, mask_r, p, average=average)
        expected += weight * (factor * naive.pair_loss("dpo", a, b, p, beta=0.3) + nll_coef * nll)
    config = DPOConfig(
        beta=0.3, divergence=divergence, divergence_alpha=alpha, nll_coef=nll_coef, nll_average=average,
        weighting=weighting,
    )  # fmt: skip
    assert mean_loss(DPO, batch, config) == pytest.approx(expected / float(batch.weights.sum()))


@given(a=_MARGINS, b=_MARGINS, p=_LABELS)
def test_without_flips_every_sigmoid_variant_is_dpo(a, b, p):
    expected = _sides("dpo", a, b, p=p, beta=0.3)
    for name in ("cdpo", "robust"):
        assert _sides(name, a, b, p=p, beta=0.3, flip_rate=0.0) == pytest.approx(expected)


@given(h=_MARGINS, p=_LABELS, flip_rate=st.floats(0, 0.45))
def test_robust_dpo_is_unbiased_under_flips(h, p, flip_rate):
    """Its expectation over flipped labels is the DPO loss of the clean label; cDPO's is not."""
    clean, flipped = (_sides("robust", h, 0.0, p=label, beta=0.3, flip_rate=flip_rate) for label in (p, 1 - p))
    expected = _sides("dpo", h, 0.0, p=p, beta=0.3)
    assert (1 - flip_rate) * clean + flip_rate * flipped == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "settings", "p", "goal"),
    [
        ("cdpo", {"beta": 0.1, "flip_rate": 0.1}, 1.0, math.log(9) / 0.1),  # odds of a right label
        ("dpo", {"beta": 0.1}, 0.9, math.log(9) / 0.1),
        ("exo", {"beta": 0.1, "smoothing": 1e-9}, 0.9, math.log(9) / 0.1),
        ("ipo", {"beta": 0.1}, 0.9, 0.8 / 0.2),  # (2p - 1) / (2 beta)
        ("hinge", {"beta": 0.1}, 0.9, 1 / 0.1),  # the majority's side, however large the majority
        ("sppo", {"beta": 0.1}, 0.9, 2 * 0.8 / 0.2),  # both sides (2p - 1) / (2 beta) from 0
    ],
)
def test_the_margin_at_which_a_link_stops(name, settings, p, goal):
    """Along a = h / 2, b = -h / 2; plain DPO of a certain label never stops (test_algos_learning)."""
    margins = [goal * share for share in (0.98, 1.0, 1.02)]
    below, at, above = (_sides(name, h / 2, -h / 2, p=p, **settings) for h in margins)
    assert at < below and at < above


def _gradients(name, a, b, *, p=1.0, **settings):
    """Of the loss, to the log-ratio of the chosen and of the rejected side."""
    leaf = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    batch = _with(pair([a], [b], p_chosen=torch.tensor([p], dtype=torch.float64)), logprobs=leaf)
    _ALL[name].loss(batch, _ALL[name].config(**settings)).total.backward()
    return leaf.grad.tolist()


def test_nca_aims_at_both_log_ratios():
    """Least where p sigma(-beta a) = sigma(beta a) / 2, so beta a = log 2p, and beta b = log 2(1 - p)."""
    found = _gradients("nca", math.log(1.6) / 0.5, math.log(0.4) / 0.5, p=0.8, beta=0.5)
    assert found == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize(
    ("name", "chosen", "rejected"),
    [
        ("apo_zero", -0.25, 0.196612),  # -s(0), s(-1), where s = sigma (1 - sigma)
        ("apo_down", 0.25 - 0.196612, 0.196612),  # s(0) - s(1), s(1): the chosen side goes down too, but less
        ("nca", -0.5 + 0.25, 0.268941 / 2),  # -sigma(-a) + sigma(a) / 2, sigma(b) / 2
    ],
)
def test_what_anchored_links_do_to_each_side(name, chosen, rejected):
    """Gradients at log-ratios 0 and -1, beta 1; negative raises."""
    assert _gradients(name, 0.0, -1.0, beta=1.0) == pytest.approx([chosen, rejected], abs=1e-6)


@pytest.mark.parametrize("name", [name for name in _ALL if name != "exo"])
@pytest.mark.parametrize("options", [{}, {"nll_coef": 0.5}, {"weighting": "policy"}])
def test_votes_are_as_good_as_repeated_pairs(name, options):
    """3 of 4 votes at weight 4 equal three pairs one way round and one the other."""
    soft, repeated = turned([-1.0, -2.0], [-1.0])
    config = _ALL[name].config(**options)
    expected = sum(mean_loss(_ALL[name], batch, config) for batch in repeated)
    assert 4 * mean_loss(_ALL[name], soft, config) == pytest.approx(expected)


def test_discopop_turns_where_its_paper_says():
    """Local minimum at a margin of -2.3714 and maximum at 1.44012, beta and tau 0.05."""
    low, high = -2.3714, 1.44012
    assert _sides("discopop", low, 0.0) < min(_sides("discopop", low + d, 0.0) for d in (-0.1, 0.1))
    assert _sides("discopop", high, 0.0) > max(_sides("discopop", high + d, 0.0) for d in (-0.1, 0.1))


@given(p=_LABELS, smoothing=st.floats(0.01, 0.49))
def test_exo_takes_the_label_as_its_target(p, smoothing):
    """0 where the policy's preference is the smoothed label, and nowhere less."""
    target = p * (1 - smoothing) + (1 - p) * smoothing
    h = math.log(target / (1 - target))
    assert _sides("exo", h, 0.0, p=p, beta=1.0, smoothing=smoothing) == pytest.approx(0.0, abs=1e-9)
    assert _sides("exo", h + 0.5, 0.0, p=p, beta=1.0, smoothing=smoothing) > 0


@_VARIANTS
def test_a_tie_is_a_label_of_one_half(name):
    tie = pair([1.0], [0.0], is_tie=torch.tensor([True]), p_chosen=torch.tensor([0.9]))
    half = pair([1.0], [0.0], p_chosen=torch.tensor([0.5]))
    config = _ALL[name].config()
    assert mean_loss(_ALL[name], tie, config) == mean_loss(_ALL[name], half, config)


def test_the_gradient_raises_the_chosen_and_lowers_the_rejected():
    """d loss / d h = -beta sigma(-beta h) = -0.1 / 2 at the reference, on every token alike."""
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    batch = GroupBatch(
        sequence_index=torch.tensor([0, 0, 1]),
        group_index=torch.tensor([0, 0]),
        ranks=torch.tensor([0, 1]),
        num_groups=1,
        logprobs=logprobs,
        ref_logprobs=logprobs.detach(),
    )
    DPO.loss(batch, DPOConfig(beta=0.1)).total.backward()
    assert logprobs.grad.tolist() == pytest.approx([-0.05, -0.05, 0.05])


def test_length_options_by_hand():
    """Log-ratios (1, 2, 3) and (1): sums 6 and 1; means 2 and 1; with 0.5 beyond the first token 1 + 0.5 * 5 = 3.5 and 1."""
    batch = pair([1.0, 2.0, 3.0], [1.0])
    for h, options in ((5.0, {}), (1.0, {"average": True}), (2.5, {"ld_alpha": 0.5}), (0.0, {"ld_alpha": 0.0})):
        assert mean_loss(DPO, batch, DPOConfig(beta=1.0, **options)) == pytest.approx(math.log1p(math.exp(-h)))


def test_the_excess_is_found_in_tokens_of_any_order():
    """Sequences may lie interleaved: only the order within each matters."""
    batch = pair([1.0, 2.0, 3.0], [4.0, 5.0])
    order = torch.tensor([3, 0, 1, 4, 2])
    mixed = _with(
        batch, **{name: getattr(batch, name)[order] for name in ("sequence_index", "logprobs", "ref_logprobs")}
    )
    config = DPOConfig(ld_alpha=0.25)
    assert mean_loss(DPO, mixed, config) == pytest.approx(mean_loss(DPO, batch, config))


@pytest.mark.parametrize(("alpha", "other"), [(1e-4, "reverse_kl"), (1 - 1e-4, "forward_kl")])
def test_the_alpha_divergence_ends_in_the_two_kls(alpha, other):
    batch = pair([0.7], [-0.4])
    found = mean_loss(DPO, batch, DPOConfig(beta=1.0, divergence="alpha", divergence_alpha=alpha))
    assert found == pytest.approx(mean_loss(DPO, batch, DPOConfig(beta=1.0, divergence=other)), abs=1e-3)


@pytest.mark.parametrize("divergence", ["forward_kl", "alpha"])
def test_a_forgotten_completion_has_a_finite_loss_and_a_gradient(divergence):
    """1/u at a log-ratio of -1,000 is beyond float32; its tangent is not."""
    logprobs = torch.tensor([-1000.0, 0.0], requires_grad=True)
    batch = _with(pair([0.0], [0.0]), logprobs=logprobs, ref_logprobs=torch.zeros(2))
    total = DPO.loss(batch, DPOConfig(divergence=divergence)).total
    total.backward()
    assert bool(total.isfinite()) and bool(logprobs.grad.isfinite().all()) and float(logprobs.grad[0]) < 0


def test_the_weight_of_wpo_by_hand():
    """Means -1 and -0.5: weight exp(-1.5). Aligned with -0.25 everywhere: exp(-1). Never above 1. No gradient through it."""
    batch = pair([-0.5, -1.5], [-0.5], collision_logprobs=torch.full((3,), -0.25, dtype=torch.float64))
    assert metric_means(DPO, batch, DPOConfig(weighting="policy"))["dpo/policy_weight"] == pytest.approx(math.exp(-1.5))
    assert metric_means(DPO, batch, DPOConfig(weighting="aligned"))["dpo/policy_weight"] == pytest.approx(math.exp(-1))
    certain = pair([-0.5], [-0.5], collision_logprobs=torch.full((2,), -3.0, dtype=torch.float64))
    assert metric_means(DPO, certain, DPOConfig(weighting="aligned"))["dpo/policy_weight"] == 1.0
    gradients = []
    for weighting in ("off", "policy"):
        leaf = batch.logprobs.clone().requires_grad_()
        DPO.loss(_with(batch, logprobs=leaf), DPOConfig(weighting=weighting)).total.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], math.exp(-1.5) * gradients[0])


def test_alignment_costs_a_pass_over_the_vocabulary_only_when_asked_for():
    assert DPO.needs_for(DPOConfig(weighting="policy")) == {"ref_logprobs"}
    assert DPO.needs_for(DPOConfig(weighting="aligned")) == {"ref_logprobs", "collision_logprobs"}


_OPTIONS = [
    {"average": True}, {"nll_coef": 0.5}, {"nll_coef": 0.5, "nll_average": "sum"}, {"divergence": "js"},
    {"divergence": "forward_kl"}, {"divergence": "alpha"}, {"weighting": "policy"}, {"weighting": "aligned"}, {"ld_alpha": 0.5},
]  # fmt: skip
_LEFT_OUT = {
    "weighting": {"gradient_is_that_of_the_loss"},  # the weight is a constant of the step by definition
    "ld_alpha": {"order_of_tokens_is_inert"},  # the order is what it reads
}


@pytest.mark.parametrize("options", _OPTIONS, ids=str)
def test_the_options_keep_the_shared_properties(options):
    left_out = {check for option in options for check in _LEFT_OUT.get(option, ())}
    for algorithm in (DPO, get_algorithm("discopop")):
        for name, check in check_algorithm(algorithm, algorithm.config(**options)):
            if name not in left_out:
                check()


def test_metrics_by_hand():
    """Log-ratios (1, 2) chosen and (1) rejected at beta 0.1: rewards 0.3 and 0.1; mean chosen token 1.5; NLL -1.5 a token."""
    means = metric_means(DPO, pair([1.0, 2.0], [1.0]), DPOConfig(beta=0.1, nll_coef=1.0))
    assert means == pytest.approx(
        {
            "dpo/loss": 0.598139,
            "dpo/chosen_logprobs": 3.0,
            "dpo/rejected_logprobs": 1.0,
            "dpo/chosen_reward": 0.3,
            "dpo/rejected_reward": 0.1,
            "dpo/margin": 0.2,
            "dpo/accuracy": 1.0,
            "dpo/kl_k1": 1.5,
            "dpo/nll": -1.5,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (DPOConfig, {"beta": 0.0}, "beta=0.0 gives no gradient"),
        (DPOConfig, {"ld_alpha": 1.5}, r"ld_alpha=1.5 is out of range; expected \[0, 1\]"),
        (DPOConfig, {"nll_coef": -1.0}, "nll_coef=-1.0 is out of range"),
        (DPOConfig, {"divergence": "alpha", "divergence_alpha": 1.0}, "divergence_alpha=1.0 is out of range"),
        (DPOConfig, {"average": True, "ld_alpha": 0.5}, "ld_alpha=0.5 does not go with average"),
        (DPOConfig, {"divergence": "js", "average": True}, "divergence=js does not go with average"),
        (DPOConfig, {"divergence": "js", "ld_alpha": 0.5}, "divergence=js does not go with ld_alpha"),
        (IPOConfig, {"divergence": "js", "average": False}, "divergence=js has no meaning for ipo"),
        (NcaConfig, {"divergence": "js"}, "divergence=js has no meaning for nca"),
        (SppoConfig, {"divergence": "js"}, "divergence=js has no meaning for sppo"),
        (ApoConfig, {"divergence": "js"}, "divergence=js has no meaning for apo"),
        (FlipConfig, {"flip_rate": 0.5}, "flip_rate=0.5 is out of range"),
        (ExoConfig, {"smoothing": 0.0}, "smoothing=0.0 is out of range"),
        (DiscopopConfig, {"tau": 2.0}, "tau=2.0 is out of range"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, settings, words):
    with pytest.raises(ConfigError, match=words):
        config(**settings)
