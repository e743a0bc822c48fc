"""Which method, which links, which rates: an explicit table of rules over what somebody has and needs.

The first rule that applies decides, and is written into the recipe. Sources are the figures of docs/how-to-choose.md.

Example:
    choice = choose(Situation(pairs=1500, agreement=0.72, hardware=HARDWARE["laptop"], num_parameters=5e8))
    choice.method, choice.rule.says
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fairlead.core.errors import ConfigError, explain
from fairlead.core.gates import declared
from fairlead.core.sections import Scope

Method = Literal["dpo", "ppo"]
NEEDS = ("verifiable", "online", "reranking", "dimensions")
MIN_PAIRS_FOR_RL = 2_000  # reward models are near chance below it (Gao et al. 2022, arXiv:2210.10760)
FIX_GUIDELINE_BELOW = 0.65  # below it the guides call the guideline vague
LOW_AGREEMENT = 0.70  # lower end of the band that the guides aim for
CLEAN_AGREEMENT = 0.80  # kappa 0.6 for two balanced choices
USABLE_SHARE = 0.85  # of a device's memory, after the runtime and fragmentation

# Bytes a parameter with weights in float32: 16 trained (weights, gradients, two Adam moments), 4 frozen. DPO computes its
# reference logprobs beforehand; PPO trains policy and value model and holds reference and reward model; with LoRA the
# reference is inside the policy. In mixed precision full PPO takes 36, which gives the guides' 4 x 80 GB for 7B.
BYTES_PER_PARAMETER = {"sft": (16, 4), "rewards": (16, 4), "dpo": (16, 4), "ppo": (40, 12)}  # (all weights, LoRA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What `--hardware` stands for."""

    name: str
    num_gpus: int
    memory_gb: float
    """Of one device, GB (1e9 bytes)."""
    says: str


HARDWARE = {
    h.name: h
    for h in (
        Hardware(name="laptop", num_gpus=0, memory_gb=16, says="a laptop, 16 GB"),
        Hardware(name="one-gpu", num_gpus=1, memory_gb=24, says="one GPU of 24 GB"),
        Hardware(name="node", num_gpus=8, memory_gb=80, says="a node of 8 GPUs of 80 GB"),
        Hardware(name="cluster", num_gpus=16, memory_gb=80, says="several nodes of 8 GPUs of 80 GB"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What somebody has and needs."""

    pairs: int
    hardware: Hardware
    num_parameters: float
    agreement: float | None = None
    """Share of pairs on which two raters agree; None is unknown."""
    needs: frozenset[str] = frozenset()
    scope: Scope = "narrow"

    def __post_init__(self) -> None:
        if self.agreement is not None and self.agreement <= 0.5:
            raise ConfigError(explain("--agreement", self.agreement, "is no better than a coin", expected="> 0.5",
                                      remedy="Fix the guideline and label 50 shared pairs again"))  # fmt: skip

    def memory_gb(self, stage: str, *, is_lora: bool) -> float:
        """Weights, gradients and optimiser state, GB; activations come on top."""
        return BYTES_PER_PARAMETER[stage][is_lora] * self.num_parameters / 1e9

    def fits(self, stage: str, *, is_lora: bool, num_devices: int = 1) -> bool:
        """True when the states fit the devices with room for activations."""
        return self.memory_gb(stage, is_lora=is_lora) <= USABLE_SHARE * self.hardware.memory_gb * num_devices


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    name: str
    method: Method
    says: str
    applies: Callable[[Situation], bool]


def _ppo_is_too_large(s: Situation) -> bool:
    return bool(s.needs) and not s.fits("ppo", is_lora=True, num_devices=max(1, s.hardware.num_gpus))


RULES: tuple[Rule, ...] = (
    Rule("few-pairs", "dpo", f"fewer than {MIN_PAIRS_FOR_RL:,} pairs: a reward model learned from them is near chance, so no RL",
         lambda s: s.pairs < MIN_PAIRS_FOR_RL and s.scope != "toy"),
    Rule("low-agreement", "dpo", f"raters agree on less than {declared(FIX_GUIDELINE_BELOW)}: a policy that searches a reward learned from such "
         "votes finds their noise", lambda s: s.agreement is not None and s.agreement < FIX_GUIDELINE_BELOW),
    Rule("memory", "dpo", "a need speaks for PPO, but its four models do not fit this hardware, even with LoRA", _ppo_is_too_large),
    Rule("verifiable", "ppo", "rewards that can be verified are used best by sampling and scoring", lambda s: "verifiable" in s.needs),
    Rule("online", "ppo", "online data: the policy must learn from what it writes now, not from a fixed file", lambda s: "online" in s.needs),
    Rule("reranking", "ppo", "reranking at inference needs a reward model anyway, and PPO uses it", lambda s: "reranking" in s.needs),
    Rule("dimensions", "ppo", "several preference dimensions: a reward model can be re-weighted and retrained without new policies from scratch",
         lambda s: "dimensions" in s.needs),
    Rule("few-gpus", "dpo", "fewer than 8 GPUs, and nothing that needs PPO: DPO has one model to train and nothing to sample",
         lambda s: s.hardware.num_gpus < 8),
    Rule("clean-pairs", "dpo", f"clean pairs (agreement {declared(CLEAN_AGREEMENT)} or more): DPO uses them directly",
         lambda s: s.agreement is not None and s.agreement >= CLEAN_AGREEMENT),
    Rule("default", "dpo", "nothing speaks for PPO: DPO is stabler and cheaper", lambda s: True),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the table decided."""

    rule: Rule
    link: Literal["dpo", "robust"]
    flip_rate: float
    advice: tuple[str, ...]

    @property
    def method(self) -> Method:
        """dpo or ppo."""
        return self.rule.method


def choose(situation: Situation) -> Choice:
    """Apply the table."""
    rule = next(rule for rule in RULES if rule.applies(situation))
    agreement = situation.agreement
    is_noisy = agreement is not None and agreement < LOW_AGREEMENT
    return Choice(rule=rule, link="robust" if is_noisy else "dpo", advice=tuple(_advice(situation, rule)),
                  flip_rate=flip_rate(agreement) if agreement is not None and is_noisy else 0.0)  # fmt: skip


def flip_rate(agreement: float) -> float:
    """Share of single votes that are flipped when two raters agree on `agreement` of the pairs: (1 - sqrt(2 A - 1)) / 2.

    Both raters err independently at one rate e, so A = (1 - e)^2 + e^2.
    """
    return round((1 - math.sqrt(2 * agreement - 1)) / 2, 3)


def _advice(s: Situation, rule: Rule) -> list[str]:
    found: list[str] = []
    if s.agreement is not None and s.agreement < FIX_GUIDELINE_BELOW:
        found.append(f"Fix the guideline first: raters agree on {declared(s.agreement)}, below {declared(FIX_GUIDELINE_BELOW)}. Label the same 50 "
                     "pairs again before collecting more.")  # fmt: skip
    unmet = sorted(s.needs) if rule.method == "dpo" else []
    if unmet:
        found.append(f"Not met by this recipe: {', '.join(unmet)}.")
    if "verifiable" in s.needs:
        found.append(
            "A checkable rule is measured as a regex behaviour in evals; the reward of PPO is still the learned one."
        )
    if rule.method == "ppo" and s.hardware.num_gpus < 8:
        found.append("PPO on fewer than 8 GPUs is slow; compare it with DPO on the same pairs before you scale.")
    if not s.fits(rule.method, is_lora=uses_lora(s, rule.method)):
        need = s.memory_gb(rule.method, is_lora=uses_lora(s, rule.method))
        found.append(f"A run trains on one device: {rule.method.upper()} of {s.num_parameters / 1e9:.3g}B parameters needs about {need:,.0f} GB of "
                     f"states, and {s.hardware.memory_gb:g} GB are there. Take a smaller model.")  # fmt: skip
    return found


def uses_lora(situation: Situation, stage: str) -> bool:
    """LoRA where all weights do not fit one device."""
    return not situation.fits(stage, is_lora=False)


@dataclass(frozen=True, slots=True)
class Rate:
    """A learning rate with its reason."""

    value: float
    why: str


_LARGE, _SMALL = 1e9, 1e8
_RATES: dict[str, tuple[tuple[float, str], tuple[float, str], tuple[float, str]]] = {  # 1B and more, 100M and more, below
    "sft": ((2e-5, "2e-5 of the guides (1e-5 to 3e-5; above: forgetting)"), (5e-5, "small models take more than the guides' 2e-5"),
            (1e-3, "tiny models: the bundled quickstart's rate")),
    "rewards": ((1e-5, "1e-5 of the guides, one epoch"), (2e-5, "small models take more than the guides' 1e-5"),
                (5e-4, "tiny models: the bundled quickstart's rate")),
    "dpo": ((5e-7, "5e-7 to 1e-6 (Zephyr, DPO paper)"), (5e-6, "small models take ten times the 5e-7 of 7B"),
            (2e-4, "tiny models: the bundled quickstart's rate")),
    "ppo": ((1.41e-5, "1.41e-5 of the guides"), (1.41e-5, "1.41e-5 of the guides"), (2e-4, "tiny models: the bundled quickstart's rate")),
}  # fmt: skip


def learning_rate(stage: str, *, num_parameters: float, is_lora: bool) -> Rate:
    """Peak rate by stage, size and adapters."""
    value, why = _RATES[stage][0 if num_parameters >= _LARGE else 1 if num_parameters >= _SMALL else 2]
    if not is_lora or stage == "ppo":
        return Rate(value, why)
    return Rate(float(f"{10 * value:.3g}"), f"ten times the full rate for LoRA; full: {why}")
