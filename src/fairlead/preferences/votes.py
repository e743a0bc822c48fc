"""A plain table of votes (item, rater, label) to agreement and aggregated labels: what `fairlead votes` does.

Any label set will do. Where the labels are a and b (also tie, both_bad, skip) and a file of items gives the texts, the result is
preferences to train on. A column `swapped` (true where b was shown on the left), when there is one, is used for side bias.

Example:
    agreement_of("votes.csv").headline
    aggregate_votes("votes.csv", "preferences.jsonl", method="dawid_skene", items="items.jsonl")
"""

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.gates import some
from fairlead.core.io import Row, read_rows, write_json, write_jsonl
from fairlead.core.records import Completion, Prompt, Task, Verdict, from_dict
from fairlead.core.summary import Figure, StageSummary
from fairlead.formats import read_votes
from fairlead.preferences.aggregate import (
    LABELS,
    WINNERS,
    Method,
    PairOutcome,
    RaterOutcome,
    Verdicts,
    rater_outcomes,
    run_method,
)
from fairlead.preferences.agreement import read_agreement
from fairlead.preferences.decisions import aggregate_decided
from fairlead.preferences.pairs import Candidate, Ledger, Rules, build_preferences, drop_repeats
from fairlead.preferences.raters import rater_table, read_raters
from fairlead.stats.aggregation import Aggregate
from fairlead.stats.agreement import Level
from fairlead.stats.votes import Votes, counts, linked_groups, votes_from_rows

SIDES = "swapped"
_MAY_ALSO_BE: Mapping[str, type] = {"item": int, "prompt": list}
_TRUTH_VALUES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def import_votes(
    path: Path | str, out: Path | str, *, item: str = "item", rater: str = "rater", label: str = "label"
) -> Votes:
    """Check a table of votes and write it as rows of item, rater, label (and swapped, where given).

    Raises:
        DataError: a column is missing, a cell is empty, or a rater voted twice on an item.
    """
    rows = read_votes(path, item=item, rater=rater, label=label)
    sides = _read_sides(path)
    names = ("item", "rater", "label", SIDES)
    table = [(*row, side) for row, side in zip(rows, sides, strict=True)] if sides is not None else rows
    write_jsonl(out, (dict(zip(names, row, strict=False)) for row in table))
    return votes_from_rows(rows, swapped=sides)


def agreement_of(
    path: Path | str, *, item: str = "item", rater: str = "rater", label: str = "label", level: str = "nominal",
    seed: int = 0, num_resamples: int = 2000,
) -> StageSummary:  # fmt: skip
    """Agreement with intervals beside published figures, and a reading of every rater.

    Args:
        level: nominal; ordinal reads labels in the order of their numbers or names; interval reads them as numbers.
    """
    votes = _with_sides(read_votes(path, item=item, rater=rater, label=label), _read_sides(path))
    found = read_agreement(votes, seed=seed, num_resamples=num_resamples, level=_choice("level", level, Level))
    readings = read_raters(votes, orders=None, outcomes={})
    alpha = next((f for f in found.figures() if f.name == "Krippendorff's alpha"), None)
    text = alpha.line() if alpha else f"Krippendorff's alpha is {found.alpha.note}"
    return StageSummary(
        stage="votes", headline=f"{_size(votes)}; {text}.", figures=found.figures(), verdicts=found.verdicts(),
        tables=(found.table(), rater_table(readings)), notes=(*found.notes(), *_connection_notes(votes)),
        facts={"raters": [reading.to_data() for reading in readings]},
    )  # fmt: skip


def aggregate_votes(
    path: Path | str, out: Path | str, *, item: str = "item", rater: str = "rater", label: str = "label",
    method: str = "dawid_skene", items: Path | str | None = None, gold: Path | str | None = None,
) -> StageSummary:  # fmt: skip
    """Write one label an item with the probability of every label; with `items`, preferences instead.

    Also writes `<out without ending>.raters.json`.

    Args:
        out: .jsonl file; rows of item, label, is_tied, num_votes, posterior, or `records.Preference`.
        items: file of item, prompt, a, b with the texts that labels a and b stand for.
        gold: file of item, label of anchors whose truth is known and held fixed.
    Raises:
        ConfigError: an unknown method.
        DataError: a vote on an item that `items` does not have, labels that are not a and b, or side bias without sides.
    """
    chosen = _choice("method", method, Method)
    rows, sides = read_votes(path, item=item, rater=rater, label=label), _read_sides(path)
    known = _read_gold(gold) if gold is not None else None
    if items is not None:
        return _aggregate_pairs(
            rows, sides, path=Path(path), out=Path(out), method=chosen, texts=_read_items(items), gold=known
        )
    votes = _with_sides(rows, sides)
    found = run_method(votes, method=chosen, gold=known)
    write_jsonl(out, _label_rows(votes, found))
    raters = _write_raters(Path(out), votes, rater_outcomes(votes, found))
    num_tied = int(found.is_tied.sum())
    headline = f"{some(votes.num_items, 'item')} labelled by {chosen} from {_size(votes)}; {num_tied:,} tied"
    return StageSummary(
        stage="votes", headline=f"{headline}.", notes=(f"Raters: {raters}", *_connection_notes(votes)),
        figures=(
            Figure(name="items", value=votes.num_items, note="a count, exact"),
            Figure(name="tied items", value=num_tied, note="a count, exact"),
            Figure(name="mean probability of the label", value=float(found.posterior.max(1).mean()), unit="share", n=votes.num_items,
                   note="as the rater model sees it; no truth was compared"),
        ),
    )  # fmt: skip


def _choice(name: str, value: str, options: Any) -> Any:
    known = typing.get_args(options)
    if value not in known:
        raise ConfigError(explain(name, value, f"is not known{nearest(value, known)}", expected=f"one of {', '.join(known)}",
                                  remedy="Choose one of them"))  # fmt: skip
    return value


def _size(votes: Votes) -> str:
    return f"{some(len(votes.items), 'vote')} by {some(votes.num_raters, 'rater')} on {some(votes.num_items, 'item')}"


def _with_sides(rows: list[tuple[str, str, str]], sides: list[bool] | None) -> Votes:
    """Labels a and b come first, in this order, where they are the ones in use: sides are told by it."""
    names = {row[2] for row in rows}
    labels = [name for name in LABELS if name in (*WINNERS, *names)] if names <= set(LABELS) else None
    return votes_from_rows(rows, label_names=labels, swapped=sides)


def _read_sides(path: Path | str) -> list[bool] | None:
    """[N] the column `swapped`, None where the file has none."""
    sides: list[bool] = []
    for row in read_rows(path):
        if SIDES not in row.values:
            return None
        sides.append(_side(row))
    return sides


def _side(row: Row) -> bool:
    text = str(row.values[SIDES]).strip().lower()
    if text not in _TRUTH_VALUES:
        raise DataError(explain(f"{row.where}.{SIDES}", row.values[SIDES], "is no truth value", expected="true or false",
                                remedy="Fix the row, or remove the column when sides were not recorded"))  # fmt: skip
    return _TRUTH_VALUES[text]


def _connection_notes(votes: Votes) -> tuple[str, ...]:
    num_groups = len(np.unique(linked_groups(votes)))
    if num_groups <= 1:
        return ()
    return (
        f"The raters fall into {num_groups} groups that share no item: raters of different groups cannot be compared.",
    )


def _label_rows(votes: Votes, found: Aggregate) -> list[dict[str, Any]]:
    num_votes = counts(votes).sum(1)
    return [
        {"item": name, "label": votes.label_names[found.labels[i]], "is_tied": bool(found.is_tied[i]), "num_votes": int(num_votes[i]),
         "posterior": {known: float(p) for known, p in zip(votes.label_names, found.posterior[i], strict=True)}}
        for i, name in enumerate(votes.item_names)
    ]  # fmt: skip


def _write_raters(out: Path, votes: Votes, outcomes: Mapping[str, RaterOutcome]) -> Path:
    path = out.with_name(f"{out.name.removesuffix('.gz').removesuffix('.jsonl')}.raters.json")
    write_json(path, [reading.to_data() for reading in read_raters(votes, orders=None, outcomes=outcomes)])
    return path


def _read_items(path: Path | str) -> dict[str, tuple[Prompt, str, str]]:
    """Prompt and both texts, by item. A prompt is a text, or a conversation as a list of {role, content}."""
    found: dict[str, tuple[Prompt, str, str]] = {}
    for row in read_rows(path):
        values = {name: row.values.get(name) for name in ("item", "prompt", "a", "b")}
        wrong = next((n for n, v in values.items() if not isinstance(v, (str, _MAY_ALSO_BE.get(n, str)))), None)
        if wrong is not None:
            raise DataError(explain(f"{row.where}.{wrong}", values[wrong], "is not a text", expected="columns item, prompt, a, b",
                                    remedy="Add or fix it"))  # fmt: skip
        name = str(values["item"]).strip()
        if name in found:
            raise DataError(
                explain(f"{row.where}.item", name, "is given twice", expected="each item once", remedy="Remove one row")
            )
        turns = values["prompt"]
        turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
        prompt = from_dict(Prompt, {"messages": turns, "source": Path(path).name}, where=row.where)
        found[name] = (prompt, str(values["a"]), str(values["b"]))
    return found


def _read_gold(path: Path | str) -> dict[str, str]:
    """{item: label} of anchors."""
    found: dict[str, str] = {}
    for row in read_rows(path):
        name, label = row.values.get("item"), row.values.get("label")
        if not isinstance(name, (str, int)) or not isinstance(label, (str, int)) or str(name) in found:
            raise DataError(
                explain(
                    row.where,
                    name,
                    "is no anchor",
                    expected="columns item and label, each item once",
                    remedy="Fix the row",
                )
            )
        found[str(name).strip()] = str(label).strip()
    return found


def _aggregate_pairs(
    rows: list[tuple[str, str, str]], sides: list[bool] | None, *, path: Path, out: Path, method: Method,
    texts: Mapping[str, tuple[Prompt, str, str]], gold: Mapping[str, str] | None,
) -> StageSummary:  # fmt: skip
    verdicts = _as_verdicts(rows, sides, path=path, method=method)
    unknown = next((task for task in verdicts.task_names if task not in texts), None)
    if unknown is not None:
        raise DataError(explain(f"{path}.item", unknown, f"has votes but no texts{nearest(unknown, texts)}", expected="an item of the items file",
                                remedy="Add its row to the items file"))  # fmt: skip
    wrong = next((label for label in (gold or {}).values() if label not in (*WINNERS, "tie", "both_bad")), None)
    if wrong is not None:
        raise DataError(
            explain(
                "gold.label",
                wrong,
                "is no known answer of a pair",
                expected="a, b, tie or both_bad",
                remedy="Fix the file",
            )
        )
    outcome, ledger = aggregate_decided(verdicts, gold or {}, method=method), Ledger()
    candidates = [_candidate(name, *text, outcome=outcome.pairs.get(name)) for name, text in texts.items()]
    preferences = drop_repeats(build_preferences(candidates, rules=Rules(), ledger=ledger), ledger)
    if not preferences:
        raise DataError(
            explain(
                path,
                None,
                f"gives no preference ({ledger.reasons()})",
                expected="a pair with a winner",
                remedy="Collect more votes",
            )
        )
    write_jsonl(out, preferences)
    raters = _write_raters(out, verdicts.votes(), outcome.raters)
    left_out = f" ({ledger.reasons()} left out)" if ledger.dropped else ""
    return StageSummary(
        stage="votes", headline=f"{some(len(preferences), 'preference')} of {some(ledger.total_in, 'pair')} by {method}{left_out}.",
        notes=(f"Raters: {raters}", *((f"{some(verdicts.num_skips, 'skip is no vote', 'skips are no votes')}.",) if verdicts.num_skips else ())),
        figures=(Figure(name="preferences", value=len(preferences), note="a count, exact"),),
    )  # fmt: skip


def _as_verdicts(rows: list[tuple[str, str, str]], sides: list[bool] | None, *, path: Path, method: Method) -> Verdicts:
    known = typing.get_args(Verdict)
    wrong = next((row[2] for row in rows if row[2].lower() not in known), None)
    if wrong is not None:
        raise DataError(explain(f"{path}.label", wrong, "is not a verdict on a pair", expected=f"one of {', '.join(known)}",
                                remedy="Rename the labels, or leave the items out to get labels instead of preferences"))  # fmt: skip
    if method == "one_coin_side_bias" and sides is None:
        raise DataError(explain(f"{path}.{SIDES}", None, "is missing", expected=f"a column {SIDES} for one_coin_side_bias",
                                remedy="Add it or choose one_coin"))  # fmt: skip
    return Verdicts.from_rows(rows, swapped=sides or [False] * len(rows))


def _candidate(name: str, prompt: Prompt, a: str, b: str, *, outcome: PairOutcome | None) -> Candidate:
    first, second = (Completion(prompt_id=prompt.id, text=text, model="unknown") for text in (a, b))
    task = Task(prompt_id=prompt.id, completion_a=first.id, completion_b=second.id, id=name)
    return Candidate(task=task, prompt=prompt, a=first, b=second, outcome=outcome, judgments=())
