"""Stage: direct preference optimisation, its links, and its relatives without a reference, on aggregated preferences.

The reference is the SFT policy; its logprobs are computed once before the first step, or on the way when it is refreshed; methods
that read none (orpo, simpo, cpo) skip that. Votes enter as soft labels (p_chosen).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fairlead.algos import get_algorithm
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import Gate, percent
from fairlead.core.records import Split
from fairlead.core.sections import LEARNING_RATE_GATES, TextSection, judge_learning_rate
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary, Threshold
from fairlead.models.checkpoint import save_policy
from fairlead.models.load import CausalModel, load_tokenizer
from fairlead.policies.dpo_config import DpoConfig, has_reference, settings_of
from fairlead.policies.reference import MovingReference
from fairlead.policies.rows import read_pairs
from fairlead.policies.telling import last_metric, metric_chart
from fairlead.stats.intervals import wilson
from fairlead.text import Branch, ChatText, Encoded, Tree
from fairlead.text.columns import TreeView
from fairlead.text.examples import row_notes
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

DPO_ACCURACY = Gate(
    name="dpo.accuracy", question="Does the policy now prefer what people preferred, on held-out pairs?", unit="share", direction="at_least",
    stop=0.45, warn=0.5, remedy="Check the preferences; lower learning_rate; the implicit reward contradicts held-out votes",
)  # fmt: skip
GATES: tuple[Gate, ...] = (DPO_ACCURACY, LEARNING_RATE_GATES["dpo"])


_NUM_CHECKED = 4  # pairs that preflight compares with the reference


def run(config: DpoConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train and save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    encoded, _ = read_pairs(
        inputs["preferences"], chat, max_length=text.max_length, services=services, title="dpo: tokens"
    )
    if "train" not in encoded:
        raise DataError(explain("preferences", None, "hold no pair to train on", expected="pairs that are no ties outside the held-out split",
                                remedy="Hold out less, or collect more"))  # fmt: skip
    model = load_trained(folder, config.training, services=services)
    if not config.use_soft_labels:
        for part in encoded.values():
            part.trees = TreeView(part.trees, change=_without_doubt)
    rate = judge_learning_rate(config.training, stage="dpo", kind="preference", num_parameters=model.num_parameters,
                               reasons=services.extras.get("allow", {}))  # fmt: skip
    heldout = encoded["heldout"].trees if "heldout" in encoded else ()
    start = Start(stage="dpo", model=model, rows=encoded["train"], heldout=heldout, bos_token_id=tokenizer.bos_token_id,
                  stop_token_ids=chat.stop_token_ids, max_length=text.max_length, max_tokens=config.training.max_tokens_per_microbatch,
                  rate=rate)  # fmt: skip
    refuse_rows(start, services)
    compared = _add_reference(config, encoded, model, services=services)
    train = encoded["train"]
    model = prepare_model(model, config.training, seed=services.seed)
    start = replace(start, model=model)
    preflight = conclude(start, comparison_checks(start, compared), services)
    session = _train(config, model, train, out=out, services=services)
    heldout_margins = (
        implicit_margins(model, encoded["heldout"], config, max_tokens=session.learner.max_tokens, heed=session.heed)
        if "heldout" in encoded
        else np.zeros(0)
    )
    save_policy(model, tokenizer, out)
    dropped = sum(part.num_dropped for part in encoded.values())
    free = "" if compared else f"{config.algorithm} has no reference: nothing was checked against one."
    notes = [
        n for n in (free, f"{dropped} pairs dropped: a side is longer than text.max_length." if dropped else "") if n
    ]
    notes += [*row_notes(encoded.values(), "pairs"), *result_notes(config.training)]
    return _summary(config, out / "metrics.jsonl", heldout_margins, len(train.trees), preflight, notes)


def _without_doubt(tree: Tree, _: int) -> Tree:
    return replace(tree, numbers={**tree.numbers, "p_chosen": 1.0})


def _train(config: DpoConfig, model: CausalModel, train: Encoded, *, out: Path, services: Services) -> Session:
    algo, training = get_algorithm(config.algorithm), config.training
    steps = num_steps(len(train.trees), batch_size=training.batch_size, num_epochs=training.num_epochs)
    learner = make_learner(Models(policy=model), algo, settings_of(config), training, num_steps=steps,
                           largest=largest_tree(train.trees), say=services.say)  # fmt: skip
    source: Sequence[Sequence[Tree]] = EpochBatches(
        train.trees, batch_size=training.batch_size, num_epochs=training.num_epochs, seed=services.seed
    )
    session = Session(
        learner, services=services, title=config.algorithm, metric="dpo/accuracy", metrics_path=out / "metrics.jsonl",
        rule=checkpoint_rule(training), rules=alert_rules(training), data=data_fingerprint(train.trees),
    )  # fmt: skip
    if config.refresh_every_steps is not None:
        source = MovingReference(
            session=session,
            model=model,
            batches=source,
            every_steps=config.refresh_every_steps,
            alpha=config.refresh_alpha,
        )
    with session:
        run_loop(learner, source, hooks=[session.after_step])
    return session


def _add_reference(
    config: DpoConfig, encoded: Mapping[Split, Encoded], model: CausalModel, *, services: Services
) -> Sequence[Tree]:
    """Annotate the pairs with the reference; returns some of those to train on, none for methods without a reference.

    With a refresh the pairs to train on get theirs on the way, and the held-out ones keep that of the start.
    """
    if not has_reference(config):
        return []
    services.say("dpo: computing reference logprobs once")
    tokens = reading_budget(
        model, config.training.max_tokens_per_microbatch, largest=largest_tree(encoded["train"].trees)
    )
    reference = Reference(
        model, cache=services.extras.get("logprob_cache"), services=services, title="dpo: reference", max_tokens=tokens
    )
    is_moving = config.refresh_every_steps is not None
    for split, part in encoded.items():
        if split != "train" or not is_moving:
            part.trees = reference.annotate(part.trees)
    few = encoded["train"].trees[:_NUM_CHECKED]
    return reference.annotate(few) if is_moving else few


def implicit_margins(
    model: CausalModel, pairs: Encoded, config: DpoConfig, *, max_tokens: int, heed: Callable[[], None]
) -> np.ndarray:
    """[P] beta * (reward of chosen minus reward of rejected), nats; `heed` as in `annotate`.

    Rewards are log-ratios with the reference of the start, or log-probabilities without one; means over tokens where the method
    averages, else sums.
    """
    trees = annotate(pairs.trees, "logprobs", PolicyLogprobs(model), max_tokens=max_tokens, heed=heed)
    is_mean = config.algorithm in ("orpo", "simpo") or getattr(settings_of(config), "average", False)

    def reward(branch: Branch) -> float:
        values = branch.arrays["logprobs"] - branch.arrays.get("ref_logprobs", np.float32(0))
        return float(values.mean() if is_mean else values.sum())

    rewards = torch.tensor([[reward(branch) for branch in tree.branches] for tree in trees])
    return (config.beta * (rewards[:, 0] - rewards[:, 1])).numpy()


def _summary(
    config: DpoConfig, metrics: Path, margins: np.ndarray, num_pairs: int, preflight: Preflight, notes: list[str]
) -> StageSummary:
    interval = wilson(int((margins > 0).sum()), len(margins))
    charts = (
        *metric_chart(metrics, "Does the policy learn to prefer what was chosen?", [("dpo/accuracy", "training pairs", "policy")], y_label="share",
                      thresholds=(Threshold(label="chance", value=0.5, kind="reference"),)),
        *metric_chart(metrics, "Do the chosen replies become less likely too?",
                      [("dpo/chosen_logprobs", "chosen", "policy"), ("dpo/rejected_logprobs", "rejected", "reference")], y_label="nats a reply"),
        *metric_chart(metrics, "How far has it moved from the reference?", [("dpo/kl_k1", "on training replies", "policy")], y_label="nats a token",
                      thresholds=(Threshold(label="warn", value=0.5, kind="warn"),)),
    )  # fmt: skip
    verdict = DPO_ACCURACY.judge(
        interval.value, low=interval.low, high=interval.high, n=len(margins), note="On held-out pairs"
    )
    return StageSummary(
        stage="dpo",
        headline=f"{config.algorithm} on {num_pairs:,} pairs orders {percent(interval.value)} of {len(margins)} held-out pairs as people did.",
        figures=(Figure(name="held-out accuracy", value=interval.value, low=interval.low, high=interval.high, n=len(margins), unit="share"),
                 Figure(name="margin", value=last_metric(metrics, "dpo/margin"), unit="nats", note="mean of the last steps")),
        verdicts=(verdict, *preflight.verdicts), charts=charts, tables=(preflight.table,), notes=tuple(notes),
        facts={"num_pairs": num_pairs},
    )  # fmt: skip
