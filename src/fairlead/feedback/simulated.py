"""Simulated raters: a gold score seen through a person's weaknesses, so that every later figure has a known truth.

A rater compares the gold scores of two completions, in units of the panel's typical difference, and chooses with

    P(a) = (1 - lapse) sigmoid(x - tie_width) + lapse / 2,      P(b) = (1 - lapse) sigmoid(-x - tie_width) + lapse / 2,
    x    = ability 2^(-order / half_life) (gold_a - gold_b) / unit + length_bias ln((1 + chars_a) / (1 + chars_b))
           + side_bias (a on the left: +, b on the left: -)

and calls a tie otherwise. Somebody who clicks at random has lapse = 1; a fair vote is one draw that depends on (seed, rater, task)
alone, so that who was asked first, and how many others there are, changes nothing but what `order` does to a drifting rater.

Example:
    panel = simulated_panel(20, seed=0)
    rater = SimulatedRater(panel[0], gold=scores, seed=0)
    judgment = rater.judge(task, prompt, a, b, swapped=True, order=3)
Source: logistic choice with ability is Chen et al. 2013 (Crowd-BT, discrimination form); ties are Rao and Kupper 1967.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion, Judgment, Prompt, Task, Verdict, content_hash
from fairlead.feedback.tasks import derived_rng

_HASH_RANGE = 16.0**13  # 52 bits: every value is an exact double below 1

# Median and spread of ability put two able raters in agreement on about three pairs of four, the upper end of the guides' band.
_MEDIAN_ABILITY, _ABILITY_SPREAD = 3.0, 0.35
_SIDE_BIAS_LOGITS = (0.6, 1.2)  # at equal texts the left is chosen 65 % to 77 % of the time, as by known judge models
_HALF_LIFE_JUDGMENTS = 10.0  # after 50 judgments, the size of a calibration round, a drifter keeps 3 % of the ability
_TIE_WIDTH_LOGITS = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterTraits:
    """How one simulated rater deviates from the gold score."""

    name: str
    ability: float = 3.0
    """Logits for one unit of gold difference; 0 cannot see any difference."""
    lapse: float = 0.0
    """Share of judgments that are a coin flip; 1 clicks at random."""
    side_bias: float = 0.0
    """Logits towards the completion on the left; negative favours the right."""
    tie_width: float = 0.0
    """Logits by which one side must lead before the rater commits to it; 0 never calls a tie."""
    length_bias: float = 0.0
    """Logits for e times as many characters; positive favours the longer completion."""
    half_life: float | None = None
    """Judgments after which the ability has halved; None stays attentive."""

    def chances(
        self, difference: float, *, log_length_ratio: float = 0.0, swapped: bool = False, order: int = 0
    ) -> tuple[float, float, float]:
        """Probabilities of the verdicts (a, tie, b).

        Args:
            difference: gold score of a minus that of b, in units.
            log_length_ratio: ln of the characters of a over those of b.
            swapped: b stands on the left.
            order: judgments made before this one.
        """
        ability = self.ability if self.half_life is None else self.ability * 2.0 ** (-order / self.half_life)
        lean = ability * difference + self.length_bias * log_length_ratio
        lean += -self.side_bias if swapped else self.side_bias
        p_a, p_b = _sigmoid(lean - self.tie_width), _sigmoid(-lean - self.tie_width)
        flip, care = self.lapse / 2, 1 - self.lapse
        return care * p_a + flip, care * max(0.0, 1 - p_a - p_b), care * p_b + flip


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


class ScoreTable:
    """A Scorer that looks scores up by completion id; immutable once made."""

    def __init__(self, name: str, values: Mapping[str, float]) -> None:
        self.name = name
        self.values = dict(values)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """Return [B] the stored scores."""
        return np.array([self.values[completion.id] for completion in completions], dtype=np.float64)


class SimulatedRater:
    """A `core.protocols.Judge` with known weaknesses. Stateless: the same question gets the same answer."""

    kind: Literal["simulated", "judge"] = "simulated"

    def __init__(self, traits: RaterTraits, *, gold: Scorer, seed: int, unit: float = 1.0) -> None:
        """`unit` is the difference in gold score that `ability` refers to."""
        self.name = traits.name
        self.traits = traits
        self.gold = gold
        self.seed = seed
        self.unit = unit

    def judge(
        self, task: Task, prompt: Prompt, a: Completion, b: Completion, *, swapped: bool = False, order: int = 0
    ) -> Judgment:
        """Return one verdict in the canonical frame."""
        gold_a, gold_b = self.gold.score([prompt, prompt], [a, b])
        p_a, p_tie, _ = self.traits.chances(
            float(gold_a - gold_b) / self.unit, log_length_ratio=math.log((1 + len(a.text)) / (1 + len(b.text))),
            swapped=swapped, order=order,
        )  # fmt: skip
        draw = uniform_draw(self.seed, self.name, task.id)
        verdict: Verdict = "a" if draw < p_a else "tie" if draw < p_a + p_tie else "b"
        return Judgment(task_id=task.id, rater=self.name, rater_kind=self.kind, verdict=verdict, swapped=swapped, order=order,
                        guideline_version=task.guideline_version)  # fmt: skip


def uniform_draw(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int(content_hash([str(part) for part in key], num_chars=13), 16) / _HASH_RANGE


def simulated_panel(num_raters: int = 20, *, seed: int, is_tie_allowed: bool = False) -> tuple[RaterTraits, ...]:
    """Raters of unequal ability among whom one in five favours a side; from five on, one drifts and one clicks at random.

    Which rater has which weakness is drawn from the seed, so that no later step can know it from the name.
    """
    rng = derived_rng("panel", seed, num_raters)
    abilities = np.exp(rng.normal(math.log(_MEDIAN_ABILITY), _ABILITY_SPREAD, size=num_raters))
    biases = rng.uniform(*_SIDE_BIAS_LOGITS, size=num_raters) * np.where(rng.random(num_raters) < 0.75, 1, -1)
    places = [int(i) for i in rng.permutation(num_raters)]
    clicker, drifter = places[:2] if num_raters >= 5 else (-1, -1)
    is_biased = set(places[2 : 2 + num_raters // 5])
    return tuple(
        RaterTraits(
            name=f"rater-{i + 1:02d}", ability=round(float(abilities[i]), 3), lapse=1.0 if i == clicker else 0.0,
            side_bias=round(float(biases[i]), 3) if i in is_biased else 0.0,
            tie_width=_TIE_WIDTH_LOGITS if is_tie_allowed else 0.0,
            half_life=_HALF_LIFE_JUDGMENTS if i == drifter else None,
        )
        for i in range(num_raters)
    )  # fmt: skip
