"""What can go wrong, how it shows, what notices it, what to do: one entry a failure, for people (docs/troubleshooting.md) and for programs.

`runbook.json` holds the entries. What is done at once is read off the rules, so page and rules cannot differ.

Example:
    next(entry for entry in runbook() if "kl_collapse" in entry.rules).remedy
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from fairlead.telemetry.alerts import Condition, Rule
from fairlead.telemetry.metrics import describe
from fairlead.telemetry.rules import DEFAULT_RULES

FILE = Path(__file__).with_name("runbook.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One entry."""

    id: str
    failure: str
    """Its name in a few words."""
    named_by: str
    """Who warns of it: guide 1 to 3 (G1, G2, G3; see docs/defaults.md), or papers."""
    symptom: str
    rules: tuple[str, ...]
    """Rules that notice it while training goes on."""
    gates: tuple[str, ...]
    """Gates that notice it between stages."""
    remedy: str
    application: str = ""
    """What notices it in the rating application, where people work; empty where nothing there does."""


def runbook() -> tuple[Failure, ...]:
    """All entries."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))["failures"]
    names = {item.name for item in fields(Failure)}
    assert all(names - {"application"} <= row.keys() <= names for row in rows), (
        "an entry lacks a field or has one too many"
    )
    return tuple(Failure(**{**row, "rules": tuple(row["rules"]), "gates": tuple(row["gates"])}) for row in rows)


def runbook_page() -> str:
    """The runbook as the Markdown of docs/troubleshooting.md."""
    rules = {rule.id: rule for rule in DEFAULT_RULES}
    lines = [
        "# Troubleshooting",
        "",
        "What goes wrong in a run, how it shows, what notices it and what to do. Rules watch every training step and act; gates judge between",
        "stages ([defaults and gates](defaults.md)); the [rating application](stages/annotation.md) watches people's work. Where the guides and the",
        "facts differ, the facts stand here. For programs the same is in `fairlead.telemetry.runbook`.",
        "",
        "A rule is changed or switched off in the recipe, under `training.alerts` of a stage, for example:",
        "",
        "```yaml",
        "policies:",
        "  ppo:",
        "    algorithm: ppo",
        "    training:",
        "      alerts:",
        "        rules:",
        "          kl_high: {limits: {rl/kl_k1: 0.3}, actions: [{kind: raise_kl, factor: 1.5, bound: 1.0}]}",
        "          length: {mode: off}",
        "```",
        "",
        "`mode: propose` lets a rule say what it would do and do nothing. A run that a rule stopped is saved; it goes on from there with",
        "`--allow alert.RULE='why'`. After a roll back the weights and the optimiser are those of the last good checkpoint, while steps, prompts",
        "and seeds go on, so that the same batch is not met again. Every alert is a line of the artifact's `alerts.jsonl`",
        "and a row of the report's table, with what came of it. Where a training has no KL coefficient, or one of 0, what would move it is",
        "left out of these rules, and refused in a recipe.",
        "",
        "Written from `src/fairlead/telemetry/runbook.json` and `rules.py` by `runbook_page()`; a test keeps them equal, and another plants",
        "each failure.",
    ]
    for entry in runbook():
        lines += ["", f"## {entry.failure}", "", f"`{entry.id}` ({entry.named_by}). {entry.symptom}", ""]
        lines += [f"- {_rule_line(rules[name])}" for name in entry.rules]
        if entry.gates:
            names = ", ".join(f"`{name}`" for name in entry.gates)
            lines.append(f"- {'Gate' if len(entry.gates) == 1 else 'Gates'} {names}.")
        lines += [f"- Rating application: {entry.application}"] if entry.application else []
        lines.append(f"- What to do: {entry.remedy}")
    return "\n".join(lines) + "\n"


def _rule_line(rule: Rule) -> str:
    """One rule: when it speaks, and what it does at once."""
    joined = " and ".join(map(_condition_words, rule.when)) or "any metric is NaN or infinite"
    if rule.need is not None:
        joined = ("any of: " if rule.need == 1 else f"{rule.need} at once of: ") + "; ".join(
            map(_condition_words, rule.when)
        )
    late = f", after {rule.warmup} rows" if rule.warmup else ""
    doing = "; ".join(action.words() for action in rule.actions)
    acts = f" Proposes: {doing}." if doing and rule.mode == "propose" else f" Does: {doing}." if doing else " Says so."
    often = (
        f" At most {rule.max_times} times{', then ' + '; '.join(a.words() for a in rule.last) if rule.last else ''}."
        if rule.max_times
        else ""
    )
    source = f" Limit: {rule.source}." if rule.source else ""
    return f"Rule `{rule.id}` ({rule.level}): {joined}{late}.{acts}{often}{source}"


def _condition_words(condition: Condition) -> str:
    unit = describe(condition.metric).unit
    limit = f"{condition.limit:g}"
    if condition.relative_to == "start":
        against = f"{limit} x the start"
    elif condition.relative_to == "start_added":
        against = f"{limit} above the start"
    else:
        against = f"{limit} {unit}" if condition.scale is None else f"{limit} x `{condition.scale}`"
    rows = f"{condition.window} rows" if condition.window > 1 else "a row"
    how = {"each": f"for {rows}", "mean": f"in the mean of {rows}", "rise": f"in its rise over {rows}"}[condition.over]
    return f"`{condition.metric}` {condition.side} {against} {how}"
