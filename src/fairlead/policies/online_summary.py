"""What an on-policy run reports: the gates of its distance and its progress, and its curves, KL first."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from fairlead.core.gates import Gate
from fairlead.core.sections import LEARNING_RATE_GATES
from fairlead.core.summary import Figure, StageSummary, Threshold
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.telling import last_metric, metric_change, metric_chart
from fairlead.stats.intervals import Interval
from fairlead.train.preflight_stage import Preflight
from fairlead.train.setup import result_notes

RL_KL = Gate(
    name="rl.kl", question="Did the policy stay near its reference while it trained?", unit="nats/token", direction="at_most", stop=1.0, warn=0.5,
    remedy="Raise kl.kl_coef or lower kl.target; the reward is not to be trusted this far out", guide="KL 0.1 to 0.5 throughout (G1)",
    reason="per token, and as an upper band only: a low KL is not a fault while behaviour improves",
)  # fmt: skip
RL_COLLAPSE = Gate(
    name="rl.collapse", question="Did the policy learn at all?", unit="reference sd of reward", direction="at_least", stop=None, warn=0.05,
    remedy="KL is near 0 and the reward is flat: lower kl.kl_coef (the guides say 0.05) and raise learning_rate slightly",
    guide="when KL collapses to zero lower the coefficient to 0.05 and raise the learning rate slightly",
)  # fmt: skip
GATES: tuple[Gate, ...] = (RL_KL, RL_COLLAPSE, LEARNING_RATE_GATES["rl"])
_COLLAPSED_KL = 0.005  # nats a token: below this the policy writes what the reference writes


def _moved(config: OnlineConfig, *, gain: Interval, kl: float, kl_sequence: float) -> str:
    """What is known: a round is sampled before it is trained on, so of one round alone nothing is."""
    replies = f"{config.batch_size} replies"
    if config.num_iterations == 1:
        return f"One round of {replies} was trained on; how far it moved the policy shows in the evaluation."
    unit = "points" if config.rewards else "reference standard deviations"
    sure = f"95 % interval {gain.low:+.2f} to {gain.high:+.2f}, " if math.isfinite(gain.low) else ""
    return (f"{config.num_iterations} rounds of {replies} moved the score by {gain.value:+.2f} {unit} "
            f"({sure}{gain.n * config.batch_size:,} replies at either end) at KL {kl:.3f} nats/token ({kl_sequence:.2f} nats a reply).")  # fmt: skip


def summarise(config: OnlineConfig, path: Path, preflight: Preflight | None, *, length_coef: float) -> StageSummary:
    """The summary of a run whose metrics lie in `path`."""
    kl, kl_sequence = (last_metric(path, f"rl/{name}") for name in ("kl_k1", "kl_k1_sequence"))
    change = metric_change(path, "rl/score", error="rl/score_error")
    gain, num_last = change.value, change.n * config.batch_size
    is_collapsed = kl < _COLLAPSED_KL and gain < (RL_COLLAPSE.warn or 0.0)
    unit, score = ("score", "composed") if config.rewards else ("reference sd", "normalised")
    gate = dataclasses.replace(RL_COLLAPSE, unit=unit) if config.rewards else RL_COLLAPSE
    collapse = gate.judge(gain if is_collapsed else max(gain, RL_COLLAPSE.warn or 0.0), n=num_last,
                          note=f"Gain of the {score} score; an alarm only together with KL near 0")  # fmt: skip
    stayed = RL_KL.judge(kl, n=num_last, note="Mean over the sampled tokens of the last rounds, estimator k1")
    low, high = (end if math.isfinite(end) else None for end in (change.low, change.high))
    moved = (Figure(name="KL", value=kl, unit="nats/token", n=num_last, note="training samples of the last rounds"),
             Figure(name="score gain", value=gain, low=low, high=high, unit=unit, n=num_last, note="first to last rounds, other prompts in each"
                    if high is not None else "no interval: a round has one prompt"))  # fmt: skip
    verdicts = (
        *((stayed, collapse) if config.num_iterations > 1 else ()),
        *(preflight.verdicts if preflight else ()),
    )
    return StageSummary(
        stage=config.algorithm,
        headline=_moved(config, gain=change, kl=kl, kl_sequence=kl_sequence),
        figures=(*(moved if config.num_iterations > 1 else ()),
                 Figure(name="length penalty", value=length_coef, unit="score at max_new_tokens")),
        verdicts=verdicts, charts=_charts(path, is_composed=config.rewards is not None), tables=(preflight.table,) if preflight else (),
        notes=tuple(result_notes(config.training)),
        facts={"kl_per_token": kl, "kl_per_sequence": kl_sequence, "score_gain": gain},
    )  # fmt: skip


def _charts(path: Path, *, is_composed: bool) -> tuple[Any, ...]:
    return (
        *metric_chart(path, "How far does the policy move from its reference?", [("rl/kl_k1", "k1", "policy"), ("rl/kl_k3", "k3", "reference")],
                      y_label="nats a token", thresholds=(Threshold(label="warn", value=0.5, kind="warn"),), y_zero=True),
        *metric_chart(path, "Does the reward rise?", [("rl/score", "score", "reward"), ("rl/reward", "after penalties", "policy")],
                      y_label="score" if is_composed else "reference sd"),
        *metric_chart(path, "Do the reward models still agree?", [("rl/disagreement", "disagreement", "reward")], y_label="sd", y_zero=True),
        *metric_chart(path, "Do replies grow?", [("rl/length_tokens", "length", "policy")], y_label="tokens", y_zero=True),
        *metric_chart(path, "Does it still explore?", [("rl/entropy", "entropy", "policy")], y_label="nats a token", y_zero=True),
        *metric_chart(path, "How many prompts teach nothing?", [("rl/zero_variance_share", "all completions alike", "neutral")], y_label="share",
                      y_zero=True),
        *metric_chart(path, "What does a nat of KL cost?", [("rl/kl_coef", "coefficient", "neutral")], y_label="reward a nat", y_zero=True),
    )  # fmt: skip
