"""The links of the DPO family: settings and formula of every variant, as it stands in its paper for a hard label.

A link maps the scores of both sides, a of the chosen and b of the rejected, to a loss. A score is the log-ratio of the policy and
the reference in nats, or what the options make of it (`dpo.scores`). Soft labels are the caller's: p * link(a, b) + (1 - p) * link(b, a).
All links are finite for every finite score.

Legend:
    P  pairs

Example:
    hinge_link(torch.tensor([3.0]), torch.tensor([1.0]), DPOConfig(beta=0.1))   # 1 - 0.1 * 2 = 0.8
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.pairs import Sides
from fairlead.core.errors import ConfigError, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """What any variant can be combined with. Abstract: each variant derives its settings from it."""

    beta: float
    """Strength of the pull towards the reference; each variant says its unit."""
    average: bool = False
    """True: log-ratios averaged over tokens (length-normalised), so that beta is per nat a token; False: summed."""
    ld_alpha: float = 1.0
    """LD-DPO: weight of the tokens beyond the length of the shorter side, in [0, 1]; 1 means off."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "reverse_kl"
    """f-DPO: the divergence that holds the policy near the reference; only for links that read a reward, not a log-ratio."""
    divergence_alpha: float = 0.5
    """Of the alpha divergence, in (0, 1); it goes to reverse KL at 0 and to forward KL at 1."""
    nll_coef: float = 0.0
    """RPO: weight of the negative log-likelihood of the better side, which is added; 0 means off."""
    nll_average: Literal["token", "sum"] = "token"
    """token: the likelihood is averaged over the tokens of each completion; sum: summed."""
    weighting: Literal["off", "policy", "aligned"] = "off"
    """WPO: pairs weighted by how likely the policy is to write them; aligned divides by what its own samples get on average."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ConfigError(explain("beta", self.beta, "gives no gradient", expected="> 0", remedy="Use 0.01 to 0.5"))
        check_range("ld_alpha", self.ld_alpha, 0.0 <= self.ld_alpha <= 1.0, expected="[0, 1]", remedy="1 is plain DPO")
        check_range(
            "divergence_alpha",
            self.divergence_alpha,
            0.0 < self.divergence_alpha < 1.0,
            expected="(0, 1)",
            remedy="Name reverse_kl or forward_kl for the ends",
        )
        check_nll(self.nll_coef)
        if self.average and self.ld_alpha != 1:
            raise _clash(
                "ld_alpha", self.ld_alpha, "average", "both correct for length", "Set ld_alpha=1 or average=false"
            )
        if self.divergence != "reverse_kl" and (self.average or self.ld_alpha != 1):
            other = "average" if self.average else "ld_alpha"
            raise _clash(
                "divergence", self.divergence, other, "a divergence is of whole sequences", f"Leave {other} out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DPOConfig(PairOptions):
    """Settings of DPO, and of hinge, which has no others."""

    beta: float = 0.1
    """KL coefficient of the problem that DPO solves, reward units per nat; larger stays closer to the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipConfig(PairOptions):
    """Settings of cDPO and robust DPO, which both know how often labels are wrong."""

    beta: float = 0.1
    """As in DPO, reward units per nat."""
    flip_rate: float = 0.1
    """Share of labels that are wrong, in [0, 0.5); from agreement A of two raters: (1 - sqrt(2 A - 1)) / 2."""

    def __post_init__(self) -> None:
        PairOptions.__post_init__(self)
        check_range(
            "flip_rate",
            self.flip_rate,
            0.0 <= self.flip_rate < 0.5,
            expected="[0, 0.5)",
            remedy="Estimate it from the votes",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IPOConfig(PairOptions):
    """Settings of IPO."""

    beta: float = 0.1
    """tau of the paper: the margin aimed at is 1 / (2 * beta), nats (per token with `average`)."""
    average: bool = True
    """True: log-ratios averaged over tokens, as TRL does after asking the authors; False: summed, as OpenRLHF does."""

    def __post_init__(self) -> None:
        PairOptions.__post_init__(self)
        _require_log_ratio("ipo", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExoConfig(PairOptions):
    """Settings of EXO."""

    beta: float = 0.1
    """As in DPO, reward units per nat."""
    smoothing: float = 1e-3
    """epsilon of the paper, in (0, 0.5): what a certain label leaves to the other side, so that the divergence is finite."""

    def __post_init__(self) -> None:
        PairOptions.__post_init__(self)
        check_range(
            "smoothing",
            self.smoothing,
            0.0 < self.smoothing < 0.5,
            expected="(0, 0.5)",
            remedy="Use 0.001: without it the loss of a certain label is infinite",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NcaConfig(PairOptions):
    """Settings of NCA for pairs."""

    beta: float = 0.01
    """As in DPO, reward units per nat; 0.01 as in the paper's experiments."""

    def __post_init__(self) -> None:
        PairOptions.__post_init__(self)
        _require_log_ratio("nca", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SppoConfig(PairOptions):
    """Settings of SPPO with hard labels."""

    beta: float = 0.001
    """1 / eta of the paper: log-ratios aim at +-1 / (2 * beta), nats; eta = 1000 there."""

    def __post_init__(self) -> None:
        PairOptions.__post_init__(self)
        _require_log_ratio("sppo", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApoConfig(PairOptions):
    """Settings of both APO losses."""

    beta: float = 0.1
    """As in DPO, reward units per nat."""

    def __post_init__(self) -> None:
        PairOptions.__post_init__(self)
        _require_log_ratio("apo_zero and apo_down", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscopopConfig(PairOptions):
    """Settings of DiscoPOP."""

    beta: float = 0.05
    """As in DPO, reward units per nat; 0.05 as where the loss was found."""
    tau: float = 0.05
    """Width of the blend between the two losses, in (0, 1]; in units of beta times the margin."""

    def __post_init__(self) -> None:
        PairOptions.__post_init__(self)
        check_range("tau", self.tau, 0.0 < self.tau <= 1.0, expected="(0, 1]", remedy="The paper has 0.05")


def sigmoid_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: PairOptions) -> Float[Tensor, "P"]:
    """-log sigma(beta (a - b)). Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7."""
    return -logsigmoid(config.beta * (a - b))


def smoothed_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: FlipConfig) -> Float[Tensor, "P"]:
    """(1 - e) times the sigmoid link plus e times that of the flipped pair. Source: Mitchell 2023, cDPO."""
    e = config.flip_rate
    return (1 - e) * sigmoid_link(a, b, config) + e * sigmoid_link(b, a, config)


def robust_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: FlipConfig) -> Float[Tensor, "P"]:
    """((1 - e) l(a, b) - e l(b, a)) / (1 - 2e) with the sigmoid link l: its mean over flips at rate e is the clean loss.

    Source: Chowdhury et al. 2024, arXiv:2403.00409. Single losses may be negative.
    """
    e = config.flip_rate
    return ((1 - e) * sigmoid_link(a, b, config) - e * sigmoid_link(b, a, config)) / (1 - 2 * e)


def squared_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: IPOConfig) -> Float[Tensor, "P"]:
    """(a - b - 1 / (2 beta))^2. Source: Azar et al. 2023, arXiv:2310.12036, eq. 17."""
    return (a - b - 1 / (2 * config.beta)) ** 2


def hinge_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: DPOConfig) -> Float[Tensor, "P"]:
    """max(0, 1 - beta (a - b)). Source: Zhao et al. 2023, arXiv:2305.10425 (SLiC); with a reference: arXiv:2309.06657, hinge-norm."""
    return torch.relu(1 - config.beta * (a - b))


def exo_link(sides: Sides, labels: Float[Tensor, "P"], config: ExoConfig) -> Float[Tensor, "P"]:
    """KL((q, 1 - q) || (p', 1 - p')) with q = sigma(beta (a - b)) and p' = p (1 - e) + (1 - p) e.

    Source: Ji et al. 2024, arXiv:2402.00856, eq. 16. Differs: the soft label is the target distribution itself, not a mixture of
    two losses, so the loss is least where q = p', as DPO's is; equal for hard labels.
    """
    target = labels + config.smoothing * (1 - 2 * labels)
    logits = config.beta * (sides[0] - sides[1])
    q = torch.sigmoid(logits)
    return q * (logsigmoid(logits) - target.log()) + (1 - q) * (logsigmoid(-logits) - torch.log1p(-target))


def nca_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: NcaConfig) -> Float[Tensor, "P"]:
    """-log sigma(beta a) - log sigma(-beta a) / 2 - log sigma(-beta b) / 2. Source: Chen et al. 2024, arXiv:2402.05369, NCA, K = 2."""
    a, b = config.beta * a, config.beta * b
    return -logsigmoid(a) - 0.5 * (logsigmoid(-a) + logsigmoid(-b))


def sppo_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: SppoConfig) -> Float[Tensor, "P"]:
    """(a - g)^2 + (b + g)^2 - 2 g^2 with g = 1 / (2 beta): 0 at the reference.

    Source: Wu et al. 2024, arXiv:2405.00675, eq. 4.7 with win rates 1 and 0. Differs: without the constant 2 g^2, which is 500,000
    at the default and would leave the loss no digits in float32.
    """
    return a**2 + b**2 - (a - b) / config.beta


def apo_zero_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: ApoConfig) -> Float[Tensor, "P"]:
    """sigma(-beta a) + sigma(beta b): chosen up, rejected down. Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7, plus 1."""
    return torch.sigmoid(-config.beta * a) + torch.sigmoid(config.beta * b)


def apo_down_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: ApoConfig) -> Float[Tensor, "P"]:
    """sigma(beta a) + sigma(-beta (a - b)): both down, rejected more. Source: arXiv:2408.06266, eq. 8, plus 1."""
    return torch.sigmoid(config.beta * a) + torch.sigmoid(-config.beta * (a - b))


def discopop_link(a: Float[Tensor, "P"], b: Float[Tensor, "P"], config: DiscopopConfig) -> Float[Tensor, "P"]:
    """(1 - s) * -log sigma(x) + s * exp(-x) with x = beta (a - b) and s = sigma(x / tau).

    Source: Lu et al. 2024, arXiv:2406.08414, eq. 5. s * exp(-x) is one exponential, so it cannot overflow for tau <= 1.
    """
    x = config.beta * (a - b)
    return torch.sigmoid(-x / config.tau) * -logsigmoid(x) + torch.exp(logsigmoid(x / config.tau) - x)


def check_range(name: str, value: float, is_inside: bool, *, expected: str, remedy: str) -> None:
    """Refuse a setting outside its range.

    Raises:
        ConfigError: it is outside.
    """
    if not is_inside:
        raise ConfigError(explain(name, value, "is out of range", expected=expected, remedy=remedy))


def check_nll(coefficient: float) -> None:
    """Refuse a negative or infinite weight of the likelihood."""
    is_inside = 0.0 <= coefficient < math.inf
    check_range("nll_coef", coefficient, is_inside, expected=">= 0", remedy="0 leaves the likelihood out")


def _require_log_ratio(name: str, config: PairOptions) -> None:
    if config.divergence != "reverse_kl":
        raise ConfigError(
            explain(
                "divergence",
                config.divergence,
                f"has no meaning for {name}, whose goals are log-ratios",
                expected="reverse_kl",
                remedy="Use dpo, cdpo, robust, hinge, exo or discopop for another divergence",
            )
        )


def _clash(name: str, value: object, other: str, why: str, remedy: str) -> ConfigError:
    return ConfigError(
        explain(name, value, f"does not go with {other}: {why}", expected=f"one of {name} and {other}", remedy=remedy)
    )
