"""Stage: a reward model from preferences, measured on held-out prompts, normalised on the policy's own samples.

Reads preferences.jsonl and the SFT policy (and its completions, as reference samples; in an update the earlier model and its votes);
writes a model folder with a scalar head (an ensemble: further trunks in member-1, member-2, ..., and scores.jsonl). Its summary's facts
carry what later stages need: mean and sd of reference scores, the length slope, accuracy.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fairlead.core.gates import Gate, percent
from fairlead.core.io import read_json
from fairlead.core.sections import LEARNING_RATE_GATES, TextSection, judge_learning_rate
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary, Table
from fairlead.models.averaging import average_reward_models
from fairlead.models.checkpoint import save_policy
from fairlead.models.freezing import freeze_embeddings
from fairlead.models.heads import (
    MEMBER_FOLDER,
    Readout,
    ScalarModel,
    even_readout,
    load_head,
    new_reward_head,
    save_head,
)
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.rewards import ensemble, quality
from fairlead.rewards.attributes import attribute_table
from fairlead.rewards.config import RewardsConfig
from fairlead.rewards.data import Data, read_data
from fairlead.rewards.training import History, Member, plan_members, read_history, train_member
from fairlead.rewards.update import earlier_head
from fairlead.stats.calibration import length_slope
from fairlead.text import ChatText
from fairlead.text.encoding import Storage
from fairlead.train.memory import largest_tree
from fairlead.train.preflight_stage import Preflight, Start, conclude, reward_checks
from fairlead.train.scoring import Outputs, read_outputs
from fairlead.train.setup import load_trained, prepare_model, reading_budget, result_notes

GATES: tuple[Gate, ...] = (*quality.GATES, LEARNING_RATE_GATES["rewards"])
__all__ = ["GATES", "RewardsConfig", "run"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Said:
    """All outputs of a model on held-out pairs [2P, M] and reference samples [R, M]."""

    heldout: Outputs
    reference: Outputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stage:
    """What every step of the stage needs."""

    config: RewardsConfig
    data: Data
    members: Sequence[Member]
    policy: str
    tokenizer: Any
    stop_token_ids: Sequence[int]
    out: Path
    services: Services
    earlier: Path | None = None
    """Folder of the reward model that an update goes on from."""

    def folder(self, number: int) -> Path:
        """Where a member of several is saved: beside the first, or out of the way when weights are averaged."""
        if self.config.ensemble.combine == "weights":
            return self.services.work / f"trained-{number}"
        return self.out if number == 0 else self.out / MEMBER_FOLDER.format(number)

    def ask(self, model: ScalarModel, tokens: int, heed: Callable[[], None]) -> _Said:
        """All outputs on both sets, by forwards of so many tokens."""
        return _Said(
            heldout=read_outputs(model, self.data.heldout.trees, max_tokens=tokens, heed=heed),
            reference=read_outputs(model, self.data.reference, max_tokens=tokens, heed=heed),
        )


def run(config: RewardsConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train, measure, normalise, save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    data = read_data(
        config,
        chat,
        inputs,
        max_length=text.max_length,
        seed=services.seed,
        storage=Storage.of(services, "rewards: tokens"),
    )
    before = _before(config, data, inputs, services)
    members = plan_members(config, data.train.trees, seed=services.seed)
    stage = _Stage(config=config, data=data, members=members, policy=folder, tokenizer=tokenizer,
                   stop_token_ids=chat.stop_token_ids, out=out, services=services, earlier=inputs.get("start"))  # fmt: skip
    model, each, history, preflight = _train(stage)
    model, said = _together(stage, model, each)
    _normalise(model, said, data, services)
    measured = quality.measure(_scores(model.readout, said.heldout), data.heldout.trees, data.heldout_rows)
    model.facts["accuracy"] = measured.accuracy.value
    save_policy(model.base, tokenizer, out)
    found = _ensemble_report(stage, model.readout, said, each, measured)
    model.facts |= found.facts
    save_head(model, out)
    facts = read_json(inputs["preferences"] / "summary.json").get("facts", {})
    tables = (*((preflight.table,) if preflight else ()), *measured.tables(), *found.tables, *_attributes(stage, said))
    return StageSummary(
        stage="rewards", headline=measured.headline(), figures=(*measured.figures(model.facts), *before, *found.figures),
        verdicts=(*measured.verdicts(facts), *(preflight.verdicts if preflight else ())),
        charts=(*measured.charts(), *quality.history_chart(history)), tables=tables,
        notes=_notes(stage, model),
        facts={"accuracy": measured.accuracy.value, "mean": model.mean, "std": model.std, "num_train_pairs": data.num_train_pairs, **model.facts},
    )  # fmt: skip


def _before(config: RewardsConfig, data: Data, inputs: Mapping[str, Path], services: Services) -> tuple[Figure, ...]:
    """How the model that an update goes on from does on the pairs that are held out now."""
    if config.update is None:
        return ()
    base = load_policy(str(inputs["start"]), device=services.device)
    model = earlier_head(base, inputs["start"], attributes=tuple(config.attributes))
    tokens = reading_budget(base, config.training.max_tokens_per_microbatch, largest=largest_tree(data.heldout.trees))
    outputs = read_outputs(
        model, data.heldout.trees, max_tokens=tokens, heed=lambda: services.heed("measuring the earlier reward model")
    )
    found = quality.measure(_scores(model.readout, outputs), data.heldout.trees, data.heldout_rows).accuracy
    return (Figure(name="accuracy before the update", value=found.value, low=found.low, high=found.high, n=found.n, unit="share",
                   note="the earlier model on the same held-out pairs"),)  # fmt: skip


def _train(stage: _Stage) -> tuple[ScalarModel | None, list[_Said], History, Preflight | None]:
    """Train every member; of several each is saved and let go, so that one is in memory at a time.

    Returns:
        The model when it is the only one, what each said, the first one's history, the preflight.
    """
    each: list[_Said] = []
    history: History = []
    preflight: Preflight | None = None
    for member in stage.members:
        model = _start(stage, member)
        if member.number == 0:
            preflight = _preflight(stage, model)
        session = train_member(stage.config, model, member, stage.data, out=stage.out, services=stage.services)
        history = history or read_history(session)
        each.append(stage.ask(model, session.learner.max_tokens, session.heed))
        if member.of == 1:
            return model, each, history, preflight
        _normalise(model, each[-1], stage.data, stage.services)
        save_policy(model.base, stage.tokenizer, stage.folder(member.number))
        save_head(model, stage.folder(member.number))
        del model, session
    return None, each, history, preflight


def _start(stage: _Stage, member: Member) -> ScalarModel:
    """The SFT policy with a fresh head; in an update the earlier model."""
    config = stage.config
    base = load_trained(str(stage.earlier or stage.policy), config.training, services=stage.services)
    base = prepare_model(base, config.training, seed=member.head_seed)
    if stage.earlier is not None:
        model = earlier_head(base, stage.earlier, attributes=tuple(config.attributes))
        if config.freeze_embeddings:
            freeze_embeddings(base)
        return model
    num_heads = config.ensemble.num_heads
    model = new_reward_head(base, seed=member.head_seed, num_outputs=len(config.attributes) or num_heads)
    if config.attributes:
        size = len(config.attributes)
        model.readout = Readout(names=tuple(config.attributes), means=(0.0,) * size, stds=(1.0,) * size,
                                weights=tuple(config.attributes.values()), is_ensemble=False)  # fmt: skip
    elif num_heads > 1:
        model.readout = even_readout([f"head {i + 1}" for i in range(num_heads)])
    if config.freeze_embeddings:
        freeze_embeddings(base)
    return model


def _preflight(stage: _Stage, model: ScalarModel) -> Preflight:
    training, services = stage.config.training, stage.services
    rate = judge_learning_rate(training, stage="rewards", kind="reward", num_parameters=model.base.num_parameters,
                               reasons=services.extras.get("allow", {}))  # fmt: skip
    start = Start(stage="rewards", model=model.base, rows=stage.data.train, heldout=stage.data.heldout.trees,
                  bos_token_id=stage.tokenizer.bos_token_id,
                  stop_token_ids=stage.stop_token_ids, max_length=services.extras["text"].max_length,
                  max_tokens=training.max_tokens_per_microbatch, rate=rate)  # fmt: skip
    return conclude(start, reward_checks(start, model), services)


def _together(stage: _Stage, model: ScalarModel | None, each: Sequence[_Said]) -> tuple[ScalarModel, _Said]:
    """The model that the members make, with its outputs on both sets."""
    config, services = stage.config, stage.services
    if config.ensemble.combine == "weights":
        folders = [stage.folder(i) for i in range(len(each))]
        model = average_reward_models(folders, device=services.device)
        tokens = reading_budget(
            model.base, config.training.max_tokens_per_microbatch, largest=largest_tree(stage.data.heldout.trees)
        )
        return model, stage.ask(model, tokens, lambda: services.heed("averaging reward models"))
    said = each[0]
    if model is None:
        model = load_head(load_policy(str(stage.out), device=services.device), stage.out)
        model.facts = {}
        said = _Said(
            heldout=np.concatenate([one.heldout for one in each], axis=1),
            reference=np.concatenate([one.reference for one in each], axis=1),
        )
    if config.ensemble.kind != "none":
        sample = said.reference if len(said.reference) else said.heldout
        names = [f"member {i + 1}" for i in range(sample.shape[1])]
        model.readout = ensemble.fit_readout(sample.astype(np.float64), names)
    return model, said


def _normalise(model: ScalarModel, said: _Said, data: Data, services: Services) -> None:
    """Mean 0, sd 1 on samples of the SFT policy, and how much score a longer reply buys."""
    if not len(said.reference):
        services.say(
            "rewards: the recipe samples no completions, so scores stay raw, not in standard deviations of reference samples"
        )
        return
    scores = _scores(model.readout, said.reference)
    lengths = [len(tree.branches[0].token_ids) for tree in data.reference]
    model.mean, model.std = float(scores.mean()), max(float(scores.std()), 1e-6)
    slope = length_slope((scores - model.mean) / model.std, lengths).value
    if math.isfinite(slope):  # samples of one length say nothing about it
        model.facts["length_slope_per_token"] = slope
    model.facts["reference_samples"] = float(len(lengths))


def _scores(readout: Readout | None, outputs: Outputs) -> npt.NDArray[Any]:
    """[B] scores of [B, M] outputs."""
    if readout is None:
        return np.ascontiguousarray(outputs[:, 0])
    return readout.scores(torch.from_numpy(outputs.astype(np.float64))).numpy()


def _ensemble_report(
    stage: _Stage, readout: Readout | None, said: _Said, each: Sequence[_Said], measured: quality.Quality
) -> ensemble.EnsembleReport:
    """Members, their disagreement, and their scores as a file; nothing for one model."""
    section = stage.config.ensemble
    if section.kind == "none":
        return ensemble.EnsembleReport()
    sizes = [len(member.trees) for member in stage.members] * section.num_heads
    if section.combine == "weights":
        heldout = np.stack([_scores(readout, one.heldout) for one in each], axis=1)
        return ensemble.EnsembleReport(
            tables=(ensemble.members_table(heldout, sizes, whole=measured.accuracy, label="weights averaged"),)
        )
    assert readout is not None, "an ensemble has a readout"
    heldout, reference = said.heldout.astype(np.float64), said.reference.astype(np.float64)
    table = ensemble.members_table(heldout, sizes, whole=measured.accuracy, label="mean of scores")
    found = ensemble.report(readout, reference, heldout)
    if len(reference):
        ensemble.write_scores(stage.out / "scores.jsonl", readout, reference, ids=stage.data.reference_ids)
    return dataclasses.replace(found, tables=(table, *found.tables))


def _attributes(stage: _Stage, said: _Said) -> tuple[Table, ...]:
    weights = stage.config.attributes
    if not weights:
        return ()
    return (attribute_table(weights, stage.data.scales, said.heldout.astype(np.float64), stage.data.heldout_rows),)


def _notes(stage: _Stage, model: ScalarModel) -> tuple[str, ...]:
    config, section = stage.config, stage.config.ensemble
    frozen = model.base.causal_lm.get_input_embeddings().weight.numel()
    ways = {
        "heads": "heads on one trunk, each with its own random weights of the prompts",
        "seeds": "models that differ in the start of the head and the order of the data",
        "bootstrap": "models, each on prompts drawn with replacement",
        "disjoint": f"models, each on its own {percent(1 / section.size)} of the prompts",
    }
    notes = [f"{frozen:,} embedding parameters frozen."] if config.freeze_embeddings else []
    if section.kind != "none":
        how = "their weights are averaged" if section.combine == "weights" else "their normalised scores are averaged"
        notes.append(f"{section.size} {ways[section.kind]}; {how}.")
    return (*notes, *stage.data.notes, *result_notes(config.training))
