"""Stage: KTO, BCO or AOT from the SFT policy, on replies that are each good or bad (a file of labels) or on preferences.

The reference is the SFT policy; its logprobs are computed once before the first step, for KTO also those of the mismatched replies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fairlead.algos import get_algorithm
from fairlead.algos.kto import WEIGHT_BAND
from fairlead.core.gates import Gate, percent
from fairlead.core.sections import LEARNING_RATE_GATES, TextSection, judge_learning_rate
from fairlead.core.services import Services
from fairlead.core.summary import Chart, Figure, StageSummary, Threshold
from fairlead.models.checkpoint import save_policy
from fairlead.models.load import CausalModel, load_tokenizer
from fairlead.policies.kto_config import KtoConfig, settings_of
from fairlead.policies.kto_data import BatchData, read_data
from fairlead.policies.telling import metric_chart
from fairlead.stats.intervals import Interval, wilson
from fairlead.stats.separation import separation
from fairlead.text import ChatText, Tree, with_mismatched
from fairlead.train.batches import EpochBatches, num_steps
from fairlead.train.forward import Models, PolicyLogprobs, annotate
from fairlead.train.hooks import Session
from fairlead.train.identity import data_fingerprint
from fairlead.train.loop import run_loop
from fairlead.train.memory import largest_tree
from fairlead.train.preflight_stage import Preflight, Start, comparison_checks, conclude, refuse_rows
from fairlead.train.reference import Reference
from fairlead.train.setup import (
    alert_rules,
    checkpoint_rule,
    load_trained,
    make_learner,
    prepare_model,
    reading_budget,
    result_notes,
)

KTO_SEPARATION = Gate(
    name="kto.separation", question="Does the policy now tell good replies from bad ones, on held-out data?", unit="share", direction="at_least",
    stop=0.45, warn=0.5, remedy="Check the labels; lower learning_rate; the implicit reward contradicts held-out labels",
)  # fmt: skip
GATES: tuple[Gate, ...] = (KTO_SEPARATION, LEARNING_RATE_GATES["kto"])
_NUM_CHECKED = 4  # trees that preflight compares with the reference


def run(config: KtoConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train and save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    data = read_data(config, chat, text, inputs=inputs, out=out, services=services)
    model = load_trained(folder, config.training, services=services)
    rate = judge_learning_rate(config.training, stage="kto", kind="preference", num_parameters=model.num_parameters,
                               reasons=services.extras.get("allow", {}))  # fmt: skip
    start = Start(stage=config.algorithm, model=model, rows=replace(data.rows, trees=data.train), heldout=data.heldout,
                  bos_token_id=tokenizer.bos_token_id, stop_token_ids=chat.stop_token_ids, max_length=text.max_length,
                  max_tokens=config.training.max_tokens_per_microbatch, rate=rate)  # fmt: skip
    refuse_rows(start, services)
    _add_reference(config, data, model, text, services=services)
    model = prepare_model(model, config.training, seed=services.seed)
    start = replace(start, model=model)
    preflight = conclude(start, comparison_checks(start, data.train[:_NUM_CHECKED]), services)
    session = _train(config, model, data.train, out=out, services=services)
    rewards = implicit_rewards(
        model, data.heldout, beta=config.beta, max_tokens=session.learner.max_tokens, heed=session.heed
    )
    save_policy(model, tokenizer, out)
    data.notes += [n for n in (_balance_note(config, data),) if n] + result_notes(config.training)
    found = measure_separation(data.heldout, rewards, are_pairs=data.are_pairs, seed=services.seed)
    return _summary(config, data, found, out / "metrics.jsonl", preflight)


def _add_reference(
    config: KtoConfig, data: BatchData, model: CausalModel, text: TextSection, *, services: Services
) -> None:
    """Annotate all replies, and the mismatched ones where the method reads them, with the start's logprobs."""
    name, tokens = (
        config.algorithm,
        reading_budget(model, config.training.max_tokens_per_microbatch, largest=largest_tree(data.train)),
    )
    services.say(f"{name}: computing reference logprobs once")
    reference = Reference(model, cache=services.extras.get("logprob_cache"), max_tokens=tokens, services=services,
                          title=f"{name}: reference")  # fmt: skip
    if "mismatched" in get_algorithm(name).needs:
        data.train = with_mismatched(data.train, max_length=text.max_length, seed=services.seed)
        data.train = reference.annotate_mismatched(data.train)
    data.train, data.heldout = reference.annotate(data.train), reference.annotate(data.heldout)


def _train(config: KtoConfig, model: CausalModel, trees: Sequence[Tree], *, out: Path, services: Services) -> Session:
    algo, training = get_algorithm(config.algorithm), config.training
    steps = num_steps(len(trees), batch_size=training.batch_size, num_epochs=training.num_epochs)
    learner = make_learner(Models(policy=model), algo, settings_of(config), training, num_steps=steps,
                           largest=largest_tree(trees), say=services.say)  # fmt: skip
    source = EpochBatches(trees, batch_size=training.batch_size, num_epochs=training.num_epochs, seed=services.seed)
    session = Session(
        learner,
        services=services,
        title=config.algorithm,
        metric=f"{_area(config)}/loss",
        metrics_path=out / "metrics.jsonl",
        rule=checkpoint_rule(training),
        rules=alert_rules(training),
        data=data_fingerprint(trees),
    )
    with session:
        run_loop(learner, source, hooks=[session.after_step])
    return session


def implicit_rewards(
    model: CausalModel, trees: Sequence[Tree], *, beta: float, max_tokens: int, heed: Callable[[], None]
) -> np.ndarray:
    """[B] beta times the log-ratio of every reply, nats, in tree and branch order; `heed` as in `annotate`."""
    found = annotate(trees, "logprobs", PolicyLogprobs(model), max_tokens=max_tokens, heed=heed)
    ratios = [float((b.arrays["logprobs"] - b.arrays["ref_logprobs"]).sum()) for t in found for b in t.branches]
    return beta * np.asarray(ratios, dtype=np.float64)


def measure_separation(trees: Sequence[Tree], rewards: np.ndarray, *, are_pairs: bool, seed: int) -> Interval:
    """Of pairs the share in the right order; of single replies the probability that a good one has more reward than a bad one."""
    if are_pairs:
        margins = rewards[0::2] - rewards[1::2]
        return wilson(int((margins > 0).sum()), len(margins))
    return separation(rewards, [rank == 0 for tree in trees for rank in tree.ranks], seed=seed)


def _balance_note(config: KtoConfig, data: BatchData) -> str:
    """A sentence when KTO's sides are out of balance, with the weight of the rarer side that would even them out."""
    if config.algorithm != "kto":
        return ""
    low, high = WEIGHT_BAND
    ratio = config.lambda_desirable * data.num_good / (config.lambda_undesirable * data.num_bad)
    if low <= ratio <= high:
        return ""
    rarer = "undesirable" if data.num_good > data.num_bad else "desirable"
    even = max(data.num_good, data.num_bad) / min(data.num_good, data.num_bad)
    return (f"lambda_desirable * good / (lambda_undesirable * bad) is {ratio:.2f}, outside {low:g} to {high:.2f}; "
            f"lambda_{rarer}={even:.3g}, the other 1, makes it 1.")  # fmt: skip


def _area(config: KtoConfig) -> str:
    return config.algorithm.removesuffix("_unpaired")


def _charts(config: KtoConfig, path: Path) -> tuple[Chart, ...]:
    area = _area(config)
    own = {
        "kto": ("How far has it moved on replies to other prompts?", "kto/z", "z", "nats a reply"),
        "bco": ("Where is the classifier undecided?", "bco/delta", "delta", "nats"),
        "aot": ("How much of the good distribution lies below its partner?", "aot/violation", "violations", "share"),
    }[area]
    question, name, label, unit = own
    return (
        *metric_chart(path, "Do good replies gain on bad ones?",
                      [("sides/good_reward", "good", "policy"), ("sides/bad_reward", "bad", "reference")], y_label="nats"),
        *metric_chart(path, "Do the good replies become less likely too?",
                      [("sides/good_logprobs", "good", "policy"), ("sides/bad_logprobs", "bad", "reference")], y_label="nats a reply"),
        *metric_chart(path, question, [(name, label, "neutral")], y_label=unit),
        *metric_chart(path, "How far has it moved from the reference?", [("sides/kl_k1", "on good replies", "policy")], y_label="nats a token",
                      thresholds=(Threshold(label="warn", value=0.5, kind="warn"),)),
    )  # fmt: skip


def _summary(config: KtoConfig, data: BatchData, found: Interval, metrics: Path, preflight: Preflight) -> StageSummary:
    how = "On held-out pairs" if data.are_pairs else "Chance that a held-out good reply has more reward than a bad one"
    verdict = KTO_SEPARATION.judge(found.value, low=found.low, high=found.high, n=found.n, note=how)
    told = f"puts a held-out good reply above a bad one {percent(found.value)} of the time ({found.n} replies)"
    if data.are_pairs:
        told = f"orders {percent(found.value)} of {found.n} held-out pairs as people did"
    if not found.n:
        told = "is unmeasured: nothing was held out"
    return StageSummary(
        stage=config.algorithm,
        headline=f"{config.algorithm} on {data.what} {told}.",
        figures=(Figure(name="held-out separation", value=found.value, low=found.low, high=found.high, n=found.n, unit="share"),
                 Figure(name="good replies", value=data.num_good), Figure(name="bad replies", value=data.num_bad)),
        verdicts=(verdict, *preflight.verdicts), charts=_charts(config, metrics), tables=(preflight.table,), notes=tuple(data.notes),
        facts={"num_good": data.num_good, "num_bad": data.num_bad, "separation": found.value},
    )  # fmt: skip
