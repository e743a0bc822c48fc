"""Alerts as a table: value against range, what was done, what came of it; of a run that goes on and of one that is over."""

import math
from pathlib import Path

from fairlead.core.io import write_jsonl
from fairlead.telemetry import Action, Condition, Rule, Watch, alert_table, kept_alerts

HIGH = Rule(id="high", when=(Condition(metric="rl/kl_k1", side="above", limit=0.5, window=1),
                             Condition(metric="rl/missing_eos_share", side="below", limit=0.25, window=1)), remedy="Look",
            actions=(Action(kind="raise_kl", factor=1.5, bound=1.0),))  # fmt: skip
WARNS = Rule(
    id="warns",
    when=(Condition(metric="rl/score", side="below", limit=2.0, window=1, relative_to="start"),),
    remedy="Wait",
)
NOT_FINITE = Rule(id="not_finite", when=(), remedy="Look", actions=(Action(kind="stop"),))


def watch() -> Watch:
    """Six rows: KL is too high at step 6 to 8, the score falls at the last."""
    found = Watch((HIGH, WARNS))
    for step, kl, score in (
        (1, 0.1, 1.0),
        (2, 0.1, 1.0),
        (3, 0.1, 1.0),
        (4, 0.1, 1.0),
        (5, 0.1, 1.0),
        (6, 0.62, 3.0),
        (8, 0.7, 3.0),
        (9, 0.2, 1.5),
    ):
        found.decide(step, {"rl/kl_k1": kl, "rl/score": score, "rl/missing_eos_share": 0.125})
        if step == 6:
            found.note("high", ["KL coefficient 0.200 to 0.300"])
    return found


def test_a_row_by_hand() -> None:
    """The newest first. The score's limit is twice its start of 1."""
    rows = alert_table(watch().spoken, is_over=True).rows
    assert rows[1] == (
        6, "WARN", "high", "rl/kl_k1 0.620 nats/token; rl/missing_eos_share 12.5 %", "at most 0.500 nats/token; at least 25.0 %",
        "KL coefficient x 1.5, not above 1", "KL coefficient 0.200 to 0.300; back in range at step 9", "Look",
    )  # fmt: skip
    assert rows[0][:3] == (9, "WARN", "warns") and rows[0][5:7] == (
        "only said",
        "nothing was changed; out of range to the end",
    )
    assert str(rows[0][4]).startswith("at least 2 score")


def test_of_a_run_that_goes_on_nobody_knows_the_end() -> None:
    assert alert_table(watch().spoken, is_over=False).rows[0][6] == "nothing was changed; still out of range"


def test_a_proposal_says_so_and_changes_nothing() -> None:
    rule = Rule(id="p", when=HIGH.when[:1], remedy="x", actions=(Action(kind="raise_kl", bound=0.5),), mode="propose")
    found = Watch((rule,))
    found.decide(1, {"rl/kl_k1": 0.9})
    assert alert_table(found.spoken, is_over=True).rows[0][5:7] == (
        "proposed: KL coefficient to 0.5", "nothing was changed; out of range to the end"
    )  # fmt: skip


def test_what_is_no_number_is_named_and_ends_when_it_is_one_again() -> None:
    found = Watch((NOT_FINITE,))
    found.decide(1, {"rl/score": math.nan, "loss": 1.0})
    found.decide(2, {"rl/score": 0.5, "loss": 1.0})
    row = alert_table(found.spoken, is_over=False).rows[0]
    assert row[3:5] == ("rl/score nan", "a finite number") and str(row[6]).endswith("back in range at step 2")


def test_after_a_roll_back_an_alert_is_over_only_when_new_rows_say_so() -> None:
    rule = Rule(id="wide", when=(Condition(metric="rl/kl_k1", side="above", limit=0.5, window=2),), remedy="x")
    found = Watch((rule,))
    for step, kl in ((1, 0.9), (2, 0.9)):
        found.decide(step, {"rl/kl_k1": kl})
    found.forget()
    found.decide(3, {"rl/kl_k1": 0.1})
    assert found.spoken[0]["over_at"] is None and found.num_open == 1
    found.decide(4, {"rl/kl_k1": 0.1})
    assert found.spoken[0]["over_at"] == 4 and found.num_open == 0


def test_what_training_left_in_a_folder_a_table_each(tmp_path: Path) -> None:
    assert kept_alerts(tmp_path) == ()
    for name in ("alerts.jsonl", "alerts-2.jsonl"):
        write_jsonl(tmp_path / name, watch().spoken)
    tables = kept_alerts(tmp_path)
    assert [table.title for table in tables] == ["Alerts, member 2", "Alerts"] and len(tables[1].rows) == 2
