"""Every metric that training logs: unit, meaning, healthy range. Declared here once; charts, alerts and docs read it.

Names are `area/name`; the four that every method shares (loss, learning_rate, grad_norm, tokens_per_s) have no area. A healthy
range is where a run that works is usually found, not a gate: gates live with their stages. `docs/metrics.md` is this file as a
page, checked by a test.

Example:
    describe("ppo/kl_k1").unit    # "nats/token"
"""

import math
from dataclasses import dataclass

from fairlead.core.errors import ConfigError, explain, nearest

INF = math.inf


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that training logs at a step."""

    name: str
    unit: str
    meaning: str
    healthy: tuple[float, float] | None = None
    """(low, high), both ends included; None when no range holds for every task."""

    @property
    def area(self) -> str:
        """The part before the slash; "training" for the four shared names."""
        return self.name.split("/")[0] if "/" in self.name else "training"

    def is_healthy(self, value: float) -> bool:
        """True when the value is finite and inside the range."""
        low, high = self.healthy or (-INF, INF)
        return math.isfinite(value) and low <= value <= high


_SHARED = (
    Metric("loss", "nats", "What the optimiser descends, over the global batch"),
    Metric("learning_rate", "1/step", "Rate that the optimiser step used"),
    Metric("grad_norm", "norm", "L2 norm of the gradient before clipping; a jump of ten times announces divergence"),
    Metric("tokens_per_s", "tokens/s", "Tokens trained on a second, padding not counted"),
)
_TRAIN = (
    Metric("train/epoch", "epochs", "Passes over the data so far"),
    Metric("train/tokens", "tokens", "Tokens trained on so far, padding not counted"),
    Metric("train/step_s", "s", "Seconds of the optimiser step, data and logging included"),
    Metric("train/memory_mb", "MB", "Peak memory of the process tree"),
    Metric("train/padding_share", "share", "Padding among the tokens that were computed", (0.0, 0.3)),
    Metric("train/clipped_share", "share", "Optimiser steps so far whose gradient was clipped", (0.0, 0.5)),
)
_SFT = (
    Metric("sft/loss", "nats/token", "Cross-entropy of the trained tokens of the demonstrations"),
    Metric("sft/perplexity", "perplexity", "exp of the cross-entropy a token on held-out demonstrations"),
    Metric("sft/accuracy", "share", "Trained tokens that the model would have chosen itself"),
    Metric("sft/terminator_logprob", "nats", "Log-probability of the end of turn; low means the model never learns to stop", (-1.0, 0.0)),
    Metric("sft/truncated_share", "share", "Demonstrations cut at the maximum length", (0.0, 0.05)),
)  # fmt: skip
_REWARD = (
    Metric("reward/loss", "nats", "Bradley-Terry loss of the pairs; log 2 = 0.693 is chance", (0.0, 0.693)),
    Metric("reward/accuracy", "share", "Held-out pairs whose chosen side scores higher; below, labels contradict; above, a leak", (0.6, 0.9)),
    Metric("reward/margin", "score", "Score of chosen minus rejected"),
    Metric("reward/chosen_score", "score", "Mean score of chosen completions"),
    Metric("reward/rejected_score", "score", "Mean score of rejected completions"),
    Metric("reward/score_mean", "score", "Mean score over both sides; drifts freely unless centred"),
    Metric("reward/score_std", "score", "Standard deviation of scores over both sides; near 0 the model gives no signal"),
    Metric("reward/calibration_error", "share", "Expected calibration error of sigmoid(margin) on held-out pairs", (0.0, 0.1)),
    Metric("reward/length_correlation", "correlation", "Spearman correlation of score and length in tokens", (-0.5, 0.5)),
)  # fmt: skip
_DPO = (
    Metric("dpo/loss", "nats", "DPO loss of the pairs; log 2 = 0.693 at the reference", (0.0, 0.7)),
    Metric("dpo/chosen_logprobs", "nats/sequence", "Summed log-probability of chosen completions; a slow fall is normal, a collapse is not"),
    Metric("dpo/rejected_logprobs", "nats/sequence", "Summed log-probability of rejected completions"),
    Metric("dpo/chosen_reward", "nats", "beta times log(policy/reference) of chosen completions"),
    Metric("dpo/rejected_reward", "nats", "beta times log(policy/reference) of rejected completions"),
    Metric("dpo/margin", "nats", "Implicit reward of chosen minus rejected; exactly 0 at the first step"),
    Metric("dpo/accuracy", "share", "Pairs whose chosen side has the higher implicit reward", (0.5, 0.98)),
    Metric("dpo/kl_k1", "nats/token", "Mean log(policy/reference) on the chosen side; not a KL on the policy's own samples", (-0.5, 0.5)),
    Metric("dpo/truncated_share", "share", "Pairs with a side cut at the maximum length", (0.0, 0.05)),
)  # fmt: skip
_PPO = (
    Metric("ppo/reward", "reward", "Mean of what is optimised: score after KL penalty, length penalty and clipping, summed over the sequence"),
    Metric("ppo/score", "score", "Mean raw score of the sampled completions"),
    Metric("ppo/score_std", "score", "Standard deviation of the raw scores of the batch"),
    Metric("ppo/group_score_std", "score", "Median over prompts of the spread of scores within a prompt; near 0 nothing is learned"),
    Metric("ppo/zero_advantage_share", "share", "Groups whose completions all scored the same, so that nothing is learned from them", (0.0, 0.5)),
    Metric("ppo/kl_k1", "nats/token", "KL(policy || reference), estimator k1, mean a sampled token; negative beyond chance is a bug", (0.0, 0.5)),
    Metric("ppo/kl_k1_sequence", "nats/sequence", "The same summed over a completion; what an adaptive controller's target means"),
    Metric("ppo/kl_k3", "nats/token", "KL(policy || reference), estimator k3: never negative, less noise", (0.0, 0.5)),
    Metric("ppo/kl_coef", "coefficient", "Weight of the KL penalty in the reward at this step"),
    Metric("ppo/kl_penalty", "reward", "Mean KL penalty taken off a completion's score"),
    Metric("ppo/entropy", "nats/token", "Mean entropy of the policy at sampled tokens; an early fall to near 0 ends exploration"),
    Metric("ppo/policy_loss", "nats", "Clipped surrogate loss"),
    Metric("ppo/clip_fraction", "share", "Tokens whose ratio left the clip range", (0.0, 0.3)),
    Metric("ppo/approx_kl", "nats/token", "Half the mean squared log-ratio to the policy that sampled: how far one update went", (0.0, 0.1)),
    Metric("ppo/ratio_mean", "ratio", "Mean importance ratio; exactly 1 on the first minibatch of a batch", (0.8, 1.25)),
    Metric("ppo/ratio_max", "ratio", "Largest importance ratio of the batch", (1.0, 10.0)),
    Metric("ppo/sampling_gap", "nats/token", "Mean absolute difference of the engine's and the trainer's logprobs", (0.0, 0.05)),
    Metric("ppo/value_loss", "reward^2", "Half the squared error of the value model, clipped"),
    Metric("ppo/explained_variance", "share", "1 - Var(returns - values)/Var(returns); below 0 the value model is worse than a constant", (0.0, 1.0)),
    Metric("ppo/values_mean", "reward", "Mean of the value model at sampled tokens"),
    Metric("ppo/returns_mean", "reward", "Mean of the returns at sampled tokens"),
    Metric("ppo/advantages_std", "reward", "Standard deviation of advantages before whitening"),
    Metric("ppo/length_tokens", "tokens", "Mean length of a sampled completion"),
    Metric("ppo/missing_eos_share", "share", "Completions cut at the limit without an end of turn", (0.0, 0.05)),
    Metric("ppo/staleness", "versions", "Weight publications between sampling and training", (0.0, 1.0)),
    Metric("ppo/rollout_tokens_per_s", "tokens/s", "Tokens sampled a second"),
)  # fmt: skip
_EVAL = (
    Metric("eval/score", "score", "Mean score on the fixed prompt set"),
    Metric("eval/held_out_score", "score", "Mean score of a reward model that training never saw; falling while eval/score rises is reward hacking"),
    Metric("eval/win_rate", "share", "Prompts on which the judge or people prefer the policy to the reference", (0.5, 1.0)),
    Metric("eval/kl_k1", "nats/token", "KL(policy || reference) on the fixed prompt set, estimator k1", (0.0, 0.5)),
    Metric("eval/length_tokens", "tokens", "Mean length on the fixed prompt set"),
    Metric("eval/self_bleu", "bleu", "BLEU-4 of samples of one prompt against each other, 0 to 1; rising means fewer different replies"),
    Metric("eval/distinct_2", "share", "Different bigrams among all bigrams of the samples"),
    Metric("eval/perplexity", "perplexity", "exp of the cross-entropy a token on held-out text"),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (*_SHARED, *_TRAIN, *_SFT, *_REWARD, *_DPO, *_PPO, *_EVAL)
_BY_NAME = {metric.name: metric for metric in METRICS}


def describe(name: str) -> Metric:
    """Look a metric up.

    Raises:
        ConfigError: nobody declared it; the nearest name is suggested.
    """
    if name not in _BY_NAME:
        raise ConfigError(explain("metric", name, f"is not declared{nearest(name, _BY_NAME)}", expected="a name of docs/metrics.md",
                                  remedy="Correct the name or declare it in telemetry/metrics.py"))  # fmt: skip
    return _BY_NAME[name]


def metrics_page() -> str:
    """The catalogue as the Markdown of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "What training logs to `metrics.jsonl`, one row a step. A healthy range is where a run that works is usually found; it is not",
        "a gate. Written from `src/fairlead/telemetry/metrics.py` by `metrics_page()`; a test keeps them equal.",
    ]
    for area in dict.fromkeys(metric.area for metric in METRICS):
        lines += ["", f"## {area}", "", "| metric | unit | healthy | meaning |", "|---|---|---|---|"]
        lines += [_page_row(metric) for metric in METRICS if metric.area == area]
    return "\n".join(lines) + "\n"


def _page_row(metric: Metric) -> str:
    healthy = "" if metric.healthy is None else f"{metric.healthy[0]:g} to {metric.healthy[1]:g}"
    cells = (f"`{metric.name}`", metric.unit, healthy, metric.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
