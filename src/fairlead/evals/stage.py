"""Stage: what changed between the SFT policy and each trained policy, on frozen prompts, against frozen criteria.

Writes evaluation.json (ranking of policies with results and headlines), one answers file a policy. Gates of the policy that
ranks first are the stage's verdicts; those of the others are tables, and keep these policies from being released.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead.core.errors import ConfigError, explain
from fairlead.core.gates import Gate, GateResult
from fairlead.core.io import read_json, read_records, write_json
from fairlead.core.records import Prompt
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.evals import capability, criteria, monitors, opinions
from fairlead.evals.answers import Answers, answer, write_answers
from fairlead.evals.behaviours import compare_all, measure, win_rate
from fairlead.evals.config import EvalsConfig
from fairlead.evals.telling import PolicyReport, capability_table, ranking_row, summarise
from fairlead.models.heads import load_head
from fairlead.models.load import CausalModel, load_policy, load_tokenizer
from fairlead.stats.intervals import paired_interval
from fairlead.text.chat import ChatText

FROZEN = Gate(
    name="evals.frozen", question="Was the policy trained under the criteria it is judged by?", unit="criteria", direction="at_least", stop=1.0,
    warn=None, remedy="Restore the criteria that were frozen before training, or pass it on record",
    guide="Define success before the start.",
)  # fmt: skip
GATES: tuple[Gate, ...] = (*criteria.GATES, *monitors.GATES, *opinions.GATES, FROZEN)

__all__ = ["GATES", "EvalsConfig", "run"]


def run(config: EvalsConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Evaluate every policy that was handed in."""
    if not any(role.startswith("policy.") for role in inputs):
        raise ConfigError(explain("evals", None, "has no policy to measure", expected="a policy that was trained and that no gate stopped",
                                  remedy="Add a section policies or sft, or see what the gates say"))  # fmt: skip
    evaluation = _Evaluation(config, inputs, services)
    before = evaluation.answers("before", inputs["before"], reference=None)
    write_answers(out / "answers-before.jsonl", before)
    abilities = {"before": evaluation.abilities(evaluation.reference)}
    reports: list[PolicyReport] = []
    for role in sorted(r for r in inputs if r.startswith("policy.")):
        name = role.removeprefix("policy.")
        model = load_policy(str(inputs[role]), device=services.device)
        after = evaluation.answers(name, inputs[role], reference=evaluation.reference, model=model)
        write_answers(out / f"answers-{name}.jsonl", after)
        abilities[name] = evaluation.abilities(model)
        reports.append(evaluation.compare(name, before, after, abilities["before"], abilities[name], inputs[role]))
    allowed = set(services.extras.get("allow", {}))
    rows = sorted((ranking_row(r, allowed) for r in reports), key=lambda row: row["rank_key"], reverse=True)
    ranked = sorted(reports, key=lambda r: [row["policy"] for row in rows].index(r.name))
    summary = summarise(ranked, rows, evaluation.prompts, before, capability_table(abilities))
    write_json(
        out / "evaluation.json", {"num_prompts": len(evaluation.prompts), "ranking": rows, "summary": summary.to_dict()}
    )
    return summary


class _Evaluation:
    """What all comparisons of one stage share."""

    def __init__(self, config: EvalsConfig, inputs: Mapping[str, Path], services: Services) -> None:
        text: TextSection = services.extras["text"]
        self.config, self.services = config, services
        self.prompts = list(read_records(inputs["criteria"] / "prompts.jsonl", Prompt))
        self.frozen = read_json(inputs["criteria"] / "criteria.json")
        folder = str(inputs["before"])
        self.chat = ChatText(load_tokenizer(folder), template=text.template, name=folder)
        self.reference: CausalModel = load_policy(folder, device=services.device)
        self.reward = None
        if "rewards" in inputs:
            self.reward = load_head(load_policy(str(inputs["rewards"]), device=services.device), inputs["rewards"])
        gold = services.extras.get("gold_scorer")
        self.scorers = {gold.name: gold} if gold is not None else {}
        find = services.extras["find_file"]
        self.pairs = (
            capability.read_texts(find(config.minimal_pairs), "good", "bad", limit=config.max_minimal_pairs)
            if config.minimal_pairs
            else []
        )
        self.max_length = text.max_length
        self.questions = (
            capability.read_texts(find(config.opinions), "question", "answer", "other", limit=config.max_opinions)
            if config.opinions
            else []
        )
        self.texts = capability.read_texts(find(config.heldout_text), "text", limit=200) if config.heldout_text else []

    def answers(
        self, name: str, folder: Path, *, reference: CausalModel | None, model: CausalModel | None = None
    ) -> Answers:
        """Replies of one policy."""
        model = model or (
            self.reference if reference is None else load_policy(str(folder), device=self.services.device)
        )
        return answer(
            name, model, self.chat, self.prompts, self.config, self.services, reference=reference, reward=self.reward
        )

    def abilities(self, model: CausalModel) -> dict[str, Any]:
        """Capability and drift of one model."""
        found: dict[str, Any] = {}

        def heed() -> None:
            self.services.heed("the evaluation")

        if self.pairs:
            found["minimal_pairs"] = capability.minimal_pairs(
                model, self.chat, self.pairs, config=self.config, heed=heed
            )
        if self.questions:
            is_first = opinions.preferences(
                model,
                self.chat,
                self.questions,
                config=self.config,
                max_length=min(self.max_length, model.max_positions),
                heed=heed,
            )
            found["flips"] = opinions.flips(is_first)
        if self.texts:
            found["perplexity"] = capability.perplexity(model, self.chat, self.texts, config=self.config, heed=heed)
        return found

    def compare(
        self, name: str, before: Answers, after: Answers, had: Mapping[str, Any], has: Mapping[str, Any], folder: Path
    ) -> PolicyReport:
        """Behaviours, gates and samples of one policy against the reference."""
        settings = self.config.criteria
        behaviours = [b for b in settings.behaviours if b.metric != "score" or self.scorers]
        values = {
            side.name: {b.id: measure(b, self.prompts, side.groups, scorers=self.scorers) for b in behaviours}
            for side in (before, after)
        }
        results = compare_all(behaviours, values[before.name], values[after.name], model=name, alpha=settings.alpha)
        change = None
        if before.rewards is not None and after.rewards is not None:
            change = paired_interval(
                before.rewards.reshape(len(self.prompts), -1).mean(1),
                after.rewards.reshape(len(self.prompts), -1).mean(1),
            )
        verdicts: list[GateResult] = [
            self._frozen(folder),
            criteria.judge_criteria(results, reward_change=change),
            *criteria.judge_guards(results),
        ]
        if "minimal_pairs" in has:
            verdicts.append(criteria.judge_capability(had["minimal_pairs"], has["minimal_pairs"], task="minimal pairs"))
        if "flips" in has:
            verdicts.append(opinions.judge_flips(had["flips"], has["flips"]))
        signals = [monitors.measure_signals(side.groups, kl=side.kl, scores=side.rewards) for side in (before, after)]
        verdicts += monitors.judge_signals(*signals, has_penalty=self.config.has_penalty)
        scores = self._prompt_scores(before), self._prompt_scores(after)
        wins = win_rate(*scores) if scores[0] is not None and scores[1] is not None else None
        return PolicyReport(name=name, results=results, verdicts=tuple(verdicts), wins=wins, answers=after, signals=signals[1], reference=signals[0],
                            before_scores=scores[0], after_scores=scores[1], reward_change=change)  # fmt: skip

    def _prompt_scores(self, side: Answers) -> Any:
        """[P, samples] gold scores, else reward-model scores, else None."""
        if self.scorers:
            scorer = next(iter(self.scorers.values()))
            prompts = [p for p, group in zip(self.prompts, side.groups, strict=True) for _ in group]
            return scorer.score(prompts, side.completions()).reshape(len(self.prompts), -1).mean(1)
        return None if side.rewards is None else side.rewards.reshape(len(self.prompts), -1).mean(1)

    def _frozen(self, folder: Path) -> GateResult:
        """1 when the policy was trained while these criteria were in force."""
        path = folder / "summary.json"
        recorded = read_json(path).get("facts", {}).get("criteria_sha256") if path.is_file() else None
        is_same = recorded == self.frozen["sha256"]
        result = FROZEN.judge(
            float(is_same),
            n=1,
            note="" if is_same else f"Trained under {str(recorded)[:12]}, judged by {self.frozen['sha256'][:12]}",
        )
        return dataclasses.replace(result, unit="")
