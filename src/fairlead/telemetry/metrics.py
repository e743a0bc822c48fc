"""Every metric that training logs: unit, meaning, healthy range. Declared here once; charts, alerts and docs read it.

Names are `area/name`; the four that every method shares (loss, learning_rate, grad_norm, tokens_per_s) have no area. A healthy
range is where a run that works is usually found, not a gate: gates live with their stages. `docs/metrics.md` is this file as a
page, checked by a test.

Example:
    describe("rl/kl_k1").unit    # "nats/token"
"""

import math
from dataclasses import dataclass, replace

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
    is_live: bool = False
    """True: the clock decides it, so it is shown and summed up, and left out of the artifact's file."""
    is_diagnostic: bool = False
    """True: a loss, or what makes one up. It says whether the optimiser works, not whether the policy is well; shown last."""

    @property
    def area(self) -> str:
        """The part before the slash; "training" for the four shared names."""
        return self.name.split("/")[0] if "/" in self.name else "training"

    def range_words(self) -> str:
        """The healthy range in words; empty without one."""
        return "" if self.healthy is None else f"{self.healthy[0]:g} to {self.healthy[1]:g}"

    def is_healthy(self, value: float) -> bool:
        """True when the value is finite and inside the range."""
        low, high = self.healthy or (-INF, INF)
        return math.isfinite(value) and low <= value <= high


_SHARED = (
    Metric("loss", "nats", "What the optimiser descends, over the global batch", is_diagnostic=True),
    Metric("learning_rate", "1/step", "Rate that the optimiser step used", is_diagnostic=True),
    Metric("grad_norm", "norm", "L2 norm of the gradient before clipping; a jump of ten times announces divergence", is_diagnostic=True),
    Metric("tokens_per_s", "tokens/s", "Tokens trained on a second, padding not counted; sampling included in PPO", is_live=True),
)  # fmt: skip
_TRAIN = (
    Metric("train/out_of_memory", "replays", "Times that memory ran out since the step before, where it did; each halves the budget", is_live=True),
    Metric("train/step_s", "s", "Seconds of an optimiser step, data and logging included, and sampling in PPO", is_live=True),
)  # fmt: skip
_SFT = (
    Metric("sft/loss", "nats/token", "Cross-entropy of the trained tokens of the demonstrations"),
    Metric("sft/perplexity", "perplexity", "exp of the cross-entropy a token on held-out demonstrations; at the steps that measure it"),
)  # fmt: skip
_REWARD = (
    Metric("reward/loss", "nats", "Bradley-Terry loss of the pairs; log 2 = 0.693 is chance", (0.0, 0.693)),
    Metric("reward/ranking_loss", "nats/ranking", "Loss of rankings of k: log k! is chance for plackett_luce, log 2 for all_pairs"),
    Metric("reward/squared_error", "sd^2", "Regression: squared error in standard deviations of the ratings; 1 is a constant score", (0.0, 1.5)),
    Metric("reward/step_loss", "nats/step", "Process-reward models: cross-entropy of the labels of steps", (0.0, 0.693)),
    Metric("reward/step_accuracy", "share", "Steps of the batch whose label has more than half of the probability", (0.5, 1.0)),
    Metric("reward/accuracy", "share", "Pairs of the batch whose chosen side scores higher; held-out accuracy is in the summary", (0.5, 1.0)),
    Metric("reward/margin", "score", "Score of chosen minus rejected"),
    Metric("reward/chosen_score", "score", "Mean score of chosen completions"),
    Metric("reward/rejected_score", "score", "Mean score of rejected completions"),
    Metric("reward/score_mean", "score", "Mean score over both sides; drifts freely unless centred"),
    Metric("reward/score_std", "score", "Standard deviation of scores over both sides; near 0 the model gives no signal"),
)  # fmt: skip
_DPO = (
    Metric("dpo/loss", "nats", "Pair loss of the direct methods, without added likelihood; its start is on the method's page (dpo: log 2)"),
    Metric("dpo/chosen_logprobs", "nats/sequence", "Summed log-probability of chosen completions; a slow fall is normal, a collapse is not"),
    Metric("dpo/rejected_logprobs", "nats/sequence", "Summed log-probability of rejected completions"),
    Metric("dpo/chosen_reward", "nats", "What the method calls the reward of chosen completions; dpo: beta times log(policy/reference)"),
    Metric("dpo/rejected_reward", "nats", "The same of rejected completions"),
    Metric("dpo/margin", "nats", "Reward of chosen minus rejected; exactly 0 at the first step of methods with a reference"),
    Metric("dpo/accuracy", "share", "Pairs whose chosen side has the higher reward", (0.5, 0.98)),
    Metric("dpo/kl_k1", "nats/token", "Mean log(policy/reference) on the chosen side; not a KL on the policy's own samples", (-0.5, 0.5)),
    Metric("dpo/nll", "nats", "Where it is added: negative log-likelihood of the better side, a token, or a completion with nll_average=sum"),
    Metric("dpo/policy_weight", "share", "WPO: mean weight of the pairs; near 0 the policy would write none of them", (0.01, 1.0)),
)  # fmt: skip
_UNPAIRED = (
    Metric("kto/loss", "lambda", "lambda minus value of the completions; half of lambda at the reference"),
    Metric("kto/z", "nats/sequence", "Mean log(policy/reference) on completions of other prompts, at least 0: no gain"),
    Metric("bco/loss", "nats", "Cross-entropy of the classifier of good and bad; log 2 = 0.693 at the reference", (0.0, 0.7)),
    Metric("bco/delta", "nats", "Reward at which the classifier is undecided: middle of the moving means of both sides"),
    Metric("bco/accuracy", "share", "Completions on their side of delta", (0.5, 0.98)),
    Metric("aot/loss", "nats", "Sorted loss of the global batch; log 2 = 0.693 at the reference", (0.0, 0.75)),
    Metric("aot/violation", "share", "Quantiles of the good distribution that lie below their partner", (0.0, 0.55)),
    Metric("sides/good_reward", "nats", "KTO, BCO, AOT: beta times log(policy/reference) of good (chosen) completions; 0 at the first step"),
    Metric("sides/bad_reward", "nats", "beta times log(policy/reference) of bad (rejected) completions"),
    Metric("sides/good_logprobs", "nats/sequence", "Summed log-probability of good completions; a slow fall is normal, a collapse is not"),
    Metric("sides/bad_logprobs", "nats/sequence", "Summed log-probability of bad completions"),
    Metric("sides/kl_k1", "nats/token", "Mean log(policy/reference) on good completions; not a KL on the policy's own samples", (-0.5, 0.5)),
)  # fmt: skip
_RL = (
    Metric("rl/kl_k1", "nats/token", "KL(policy || reference), estimator k1, mean a sampled token; negative beyond chance is a bug", (0.0, 0.5)),
    Metric("rl/kl_k1_error", "nats/token", "Standard error of rl/kl_k1 over the completions of the round"),
    Metric("rl/kl_k1_sequence", "nats/sequence", "The same summed over a completion; what an adaptive controller's target means"),
    Metric("rl/kl_k1_sequence_error", "nats/sequence", "Standard error of rl/kl_k1_sequence"),
    Metric("rl/kl_k3", "nats/token", "KL(policy || reference), estimator k3: never negative, less noise", (0.0, 0.5)),
    Metric("rl/kl_efficiency", "ratio", "Score gained since the start, over sd * sqrt(2 KL a sequence): what a small tilt gains at most", (0.2, 1.3)),
    Metric("rl/kl_coef", "coefficient", "Weight of the KL penalty in the reward at this step"),
    Metric("rl/kl_penalty", "reward", "Mean KL penalty taken off a completion's score"),
    Metric("rl/reward", "reward", "Mean of what is optimised: score after KL penalty, length penalty and clipping, summed over the sequence"),
    Metric("rl/score", "score", "Mean raw score of the sampled completions"),
    Metric("rl/score_std", "score", "Standard deviation of the raw scores of the batch"),
    Metric("rl/score_error", "score", "Standard error of rl/score over the prompts of the round"),
    Metric("rl/disagreement", "sd", "Reward ensembles: mean standard deviation of the members' scores; a rise: the policy leaves what they know"),
    Metric("rl/learned_share", "share", "Pairs and imitation: completions of the round that are learned from"),
    Metric("rl/zero_variance_share", "share", "Prompts all of whose completions score alike and teach nothing; near 1 the prompts are too hard or "
           "too easy", (0.0, 0.5)),
    Metric("rl/length_tokens", "tokens", "Mean length of a sampled completion"),
    Metric("rl/missing_eos_share", "share", "Completions cut at the limit without an end of turn", (0.0, 0.05)),
    Metric("rl/repetition", "share", "Mean share of a completion's token 4-grams that occurred in it before"),
    Metric("rl/distinct_2", "share", "Different token pairs of all in the first 32 tokens of each completion; a fall: replies become alike"),
    Metric("rl/reference_perplexity", "perplexity", "Perplexity of the samples under the frozen reference; twice the start's: text turns incoherent"),
    Metric("rl/base_perplexity", "perplexity", "Perplexity of the samples under the recipe's untrained model, with perplexity_model: base"),
    Metric("rl/entropy", "nats/token", "Mean entropy of the policy at sampled tokens; an early fall to near 0 ends exploration"),
    Metric("rl/dropped_share", "share", "Completions that are not trained on: no finite score, no token, or alone in their group", (0.0, 0.05)),
    Metric("rl/empty_share", "share", "Completions without a token, which are dropped", (0.0, 0.01)),
    Metric("rl/turns", "turns", "Tools: mean turns of a rollout; 1: none is called; near max_turns with a rising rl/turn_limit_share: it loops"),
    Metric("rl/tool_calls", "calls", "Tools: mean calls of a rollout; a fall to 0 under a rising reward: it has learned to do without"),
    Metric("rl/tool_errors", "share", "Tools: calls that could not be answered as they were asked; falls as their form is learned", (0.0, 0.3)),
    Metric("rl/tool_failed", "share", "Tools: rollouts dropped because the environment itself was too slow, crashed or raised", (0.0, 0.01)),
    Metric("rl/turn_limit_share", "share", "Tools: rollouts with an answer that no turn or token was left for; counted as cut off", (0.0, 0.05)),
    Metric("rl/observation_tokens", "tokens", "Tools: mean tokens a rollout that the policy did not write; no loss, KL or length counts them"),
    Metric("rl/observations_cut", "share", "Tools: observations longer than max_observation_tokens, whose end the policy did not see", (0.0, 0.05)),
    Metric("rl/turn_reward", "reward", "Tools: mean of what the environment pays in all turns of a rollout, without error_penalty"),
    Metric("rl/lone_survivors", "prompts", "Prompts of which one completion was left, dropped where a group is the baseline", (0.0, 1.0)),
    Metric("rl/resampled_prompts", "prompts", "Prompts sampled in the place of others that taught nothing or had no score"),
    Metric("rl/first_ratio_gap", "nats/token", "On-policy rounds: RMS log-ratio at the first minibatch; 0 but for rounding", (0.0, 0.01)),
    Metric("rl/sampling_gap", "nats/token", "Mean absolute difference of the engine's and the trainer's logprobs", (0.0, 0.05)),
    Metric("rl/mismatch_ratio_q01", "ratio", "Trainer's over engine's probability of sampled tokens before any bound: 1 % are below", (0.5, 1.0)),
    Metric("rl/mismatch_ratio_q50", "ratio", "The same: median", (0.98, 1.02)),
    Metric("rl/mismatch_ratio_q99", "ratio", "The same: 1 % are above", (1.0, 2.0)),
    Metric("rl/mismatch_mean", "ratio", "The same: mean, which is 1 but for chance; where the step weighs them", (0.98, 1.02), is_diagnostic=True),
    Metric("rl/mismatch_sample_share", "share", "Effective sample size of these ratios: (sum w)^2 / (n sum w^2)", (0.9, 1.0)),
    Metric("rl/correction_capped_share", "share", "Tokens whose ratio was cut to the cap", (0.0, 0.01)),
    Metric("rl/correction_masked_share", "share", "Tokens left out because their ratio, or their completion's, was out of range", (0.0, 0.05)),
    Metric("rl/staleness", "rounds", "Rounds of training between sampling these completions and training on them; at most max_staleness", (0.0, 4.0)),
    Metric("rl/approx_kl", "nats/token", "Half the mean squared log-ratio to the policy that sampled: how far one update went", (0.0, 0.1)),
    Metric("rl/clip_fraction", "share", "Tokens whose ratio left the clip range", (0.0, 0.3)),
    Metric("rl/explained_variance", "share", "1 - Var(returns - values)/Var(returns); below 0 the value model is worse than a constant", (0.0, 1.0)),
    Metric("rl/policy_loss", "nats", "Clipped surrogate loss", is_diagnostic=True),
    Metric("rl/value_loss", "reward^2", "Half the squared error of the value model, clipped", is_diagnostic=True),
    Metric("rl/kl_loss", "nats/token", "KL(policy || reference) as it stands in the loss, k3, weighted by the ratio", (0.0, 0.5), is_diagnostic=True),
    Metric("rl/ratio_mean", "ratio", "Mean importance ratio; exactly 1 on the first minibatch of a batch", (0.8, 1.25), is_diagnostic=True),
    Metric("rl/values_mean", "reward", "Mean of the value model at sampled tokens", is_diagnostic=True),
    Metric("rl/returns_mean", "reward", "Mean of the returns at sampled tokens", is_diagnostic=True),
    Metric("rl/advantages_std", "reward", "Standard deviation of advantages before whitening", is_diagnostic=True),
    Metric("rl/sample_s", "s", "Seconds of sampling the round", is_live=True),
    Metric("rl/environment_s", "s", "Tools: seconds of the sampling in which the environment answered and the engine waited", is_live=True),
    Metric("rl/score_s", "s", "Seconds of scoring it", is_live=True),
    Metric("rl/forward_s", "s", "Seconds of its reference logprobs and values", is_live=True),
    Metric("rl/train_s", "s", "Seconds of its optimiser steps", is_live=True),
    Metric("rl/sample_tokens_per_s", "tokens/s", "Generate: tokens that the policy wrote a second of sampling, environments left out", is_live=True),
    Metric("rl/score_tokens_per_s", "tokens/s", "Score: tokens of the completions that were scored a second of scoring", is_live=True),
    Metric("rl/train_tokens_per_s", "tokens/s", "Update: tokens of the optimiser steps a second, prompts and every pass counted", is_live=True),
    Metric("rl/out_of_memory", "times", "Times that memory ran out in the engine while it sampled the round, where it did; each halves its slots",
           is_live=True),
)  # fmt: skip
_COMPOSED = (
    Metric("reward/total_mean", "reward", "Composed rewards: mean of what the components make together, samples that were dropped left out"),
    Metric("reward/total_std", "reward", "Their standard deviation; near 0 the policy is told nothing"),
    Metric("reward/dropped", "share", "Samples that are not trained on, because a component failed on them or none applies", (0.0, 0.05)),
)  # fmt: skip
METRICS: tuple[Metric, ...] = (*_RL, *_DPO, *_UNPAIRED, *_REWARD, *_COMPOSED, *_SFT, *_SHARED, *_TRAIN)
_BY_NAME = {metric.name: metric for metric in METRICS}
_FAMILIES = (
    Metric("reward/NAME_mean", "score", "Mean raw score of a component where it applies, before weight and normalisation"),
    Metric("reward/NAME_std", "score", "Standard deviation of these scores; near 0 the component tells nothing apart"),
    Metric("reward/NAME_share", "share", "Samples that the component applies to"),
    Metric("reward/NAME_failed", "samples", "Samples on which the component failed or was too slow", (0.0, 0.0)),
    Metric("reward/NAME_swaps", "swaps", "Where a recipe swaps reward models: swaps made up to this step; the ids are in scored.jsonl"),
    Metric("reward/NAME_judge_tokens", "tokens", "Tokens that a judge model read and wrote for the round; what is kept costs none", is_live=True),
    Metric("reward/NAME_judge_dollars", "dollars", "What they cost at the recipe's prices", is_live=True),
    Metric("reward/NAME_judge_faults", "comparisons", "Comparisons without a verdict: no answer in time, or none in its last line", (0.0, 0.0)),
)  # fmt: skip
"""One for each component of a composed reward, by the name that the recipe gives it."""


def describe(name: str) -> Metric:
    """Look a metric up; of a component's the family is found.

    Raises:
        ConfigError: nobody declared it; the nearest name is suggested.
    """
    if name not in _BY_NAME:
        for family in _FAMILIES:
            start, _, end = family.name.partition("NAME")
            if name.startswith(start) and name.endswith(end) and len(name) > len(start) + len(end):
                return replace(family, name=name)
        raise ConfigError(explain("metric", name, f"is not declared{nearest(name, _BY_NAME)}", expected="a name of docs/metrics.md",
                                  remedy="Correct the name or declare it in telemetry/metrics.py"))  # fmt: skip
    return _BY_NAME[name]


def is_live(name: str) -> bool:
    """Does the clock, or what an earlier run left, decide its values? Also of names that nobody declared: they are none."""
    families = [f.name.partition("NAME") for f in _FAMILIES if f.is_live]
    return (name in _BY_NAME and _BY_NAME[name].is_live) or any(
        name.startswith(start) and name.endswith(end) for start, _, end in families
    )


def metrics_page() -> str:
    """The catalogue as the Markdown of docs/metrics.md."""
    *most, last = [f"`{metric.name}`" for metric in (*METRICS, *_FAMILIES) if metric.is_live]
    live = f"{', '.join(most)} and {last}"
    lines = [
        "# Metrics",
        "",
        "What training logs to the artifact's `metrics.jsonl`, one row a step (on-policy methods: one a round). A healthy range is where a run",
        "that works is usually found; it is not a gate. Figures of evaluations are in the summaries of their stages, not here.",
        "",
        f"{live} depend on the clock, and equal runs must leave equal files. So they stand on the progress line, in",
        "a running stage's `metrics.jsonl` under `work` in FAIRLEAD_HOME, and as medians in the facts of its `summary.json` (`tokens_per_s`,",
        "`step_s`; on-policy `generate_tokens_per_s`, `score_tokens_per_s` and `update_tokens_per_s`) and in the report's table of costs. They have",
        "no healthy range: it would be one of the machine and the model.",
        "",
        "KL stands first, and losses stand under diagnostics: they say whether the optimiser works, not whether the policy is well. While a stage",
        "trains, [rules](troubleshooting.md) watch these metrics, say in one line what is wrong and what to do, and act.",
        "",
        "NAME stands for a component of a composed reward (`policies.NAME.rewards.components`).",
        "",
        "Written from `src/fairlead/telemetry/metrics.py` by `metrics_page()`; a test keeps them equal.",
    ]
    every = (*METRICS, *_FAMILIES)
    for area in dict.fromkeys(metric.area for metric in every):
        lines += ["", f"## {area}"]
        for title, is_diagnostic in (("", False), (f"### Diagnostics of {area}", True)):
            rows = [_page_row(m) for m in every if m.area == area and m.is_diagnostic == is_diagnostic]
            if rows:
                lines += [
                    *(("", title) if title else ()),
                    "",
                    "| metric | unit | healthy | meaning |",
                    "|---|---|---|---|",
                    *rows,
                ]
    return "\n".join(lines) + "\n"


def _page_row(metric: Metric) -> str:
    cells = (f"`{metric.name}`", metric.unit, metric.range_words(), metric.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
