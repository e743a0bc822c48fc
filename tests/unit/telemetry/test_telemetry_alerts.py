"""Rules speak when something stays wrong, once, stay silent about noise, and decide the same when they are resumed or replayed."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.errors import ConfigError
from fairlead.telemetry import (
    DEFAULT_RULES,
    Action,
    Condition,
    Decision,
    Rule,
    Watch,
    describe,
    move_kl_coef,
    replay,
    without_metrics,
)

HIGH = Rule(id="high", when=(Condition(metric="rl/kl_k1", side="above", limit=0.5),), remedy="Raise kl.kl_coef")
KL_COEF = Action(kind="raise_kl", factor=1.5, bound=1.0)


def said(rule: Rule, values: list[float], metric: str = "rl/kl_k1") -> list[int]:
    return [alert.step for alert in replay((rule,), [(step, {metric: value}) for step, value in enumerate(values)])]


def test_a_limit_passed_for_a_window_speaks_once():
    assert said(HIGH, [0.2, 0.6, 0.6, 0.6, 0.6, 0.7]) == [3]


def test_noise_of_a_single_step_is_not_said():
    assert said(HIGH, [0.2, 3.0, 0.2, 3.0, 3.0, 0.2]) == []


def test_what_came_back_may_be_said_again():
    assert said(HIGH, [0.6] * 3 + [0.1] + [0.6] * 3) == [2, 6]


def test_a_rule_may_speak_again_while_it_holds_and_act_so_often_at_most():
    rule = Rule(id="again", when=(Condition(metric="rl/kl_k1", side="above", limit=0.5, window=1),), remedy="x", actions=(KL_COEF,),
                again_after=3, max_times=2, last=(Action(kind="stop"),))  # fmt: skip
    alerts = replay((rule,), [(step, {"rl/kl_k1": 0.9}) for step in range(8)])
    assert [(a.step, [x.kind for x in a.actions]) for a in alerts] == [
        (0, ["raise_kl"]),
        (3, ["raise_kl"]),
        (6, ["stop"]),
    ]


def test_nothing_is_said_before_the_warm_up_and_then_at_once():
    assert said(Rule(id="w", when=HIGH.when, remedy="x", warmup=5), [0.9] * 8) == [5]


def test_a_limit_relative_to_the_start_is_a_multiple_of_the_first_five_rows():
    """Start 2.0: below 1.0. A negative start doubles downwards: start -40, limit 1.5, so below -60."""
    half = Rule(
        id="h", when=(Condition(metric="rl/entropy", side="below", limit=0.5, relative_to="start"),), remedy="x"
    )
    assert said(half, [2.0] * 5 + [1.01] * 3, "rl/entropy") == []
    assert said(half, [2.0] * 5 + [0.9] * 3, "rl/entropy") == [7]
    fall = Rule(
        id="f",
        when=(Condition(metric="dpo/chosen_logprobs", side="below", limit=1.5, window=5, relative_to="start"),),
        remedy="x",
    )
    assert said(fall, [-40.0] * 5 + [-59.0] * 6, "dpo/chosen_logprobs") == []
    assert said(fall, [-40.0] * 5 + [-61.0] * 6, "dpo/chosen_logprobs") == [9]


def test_a_limit_may_be_added_to_the_start():
    rule = Rule(
        id="r",
        when=(Condition(metric="rl/repetition", side="above", limit=0.05, relative_to="start_added"),),
        remedy="x",
    )
    assert said(rule, [0.1] * 5 + [0.14] * 3 + [0.16] * 3, "rl/repetition") == [10]


def test_a_mean_and_a_rise_over_a_window():
    """Mean of 1, 2, 6 is 3. The line through 0, 1, 2, 3 rises by 3; through 0, 3, 0, 3 by 3 * slope 0.6 = 1.8."""
    mean = Rule(id="m", when=(Condition(metric="rl/score", side="above", limit=2.9, over="mean"),), remedy="x")
    assert said(mean, [1.0, 2.0, 6.0], "rl/score") == [2]
    alerts = replay(
        (
            Rule(
                id="r", when=(Condition(metric="rl/score", side="below", limit=1.9, window=4, over="rise"),), remedy="x"
            ),
        ),
        [(step, {"rl/score": value}) for step, value in enumerate([0.0, 1.0, 2.0, 3.0])],
    )
    assert alerts == []
    rise = Rule(
        id="r", when=(Condition(metric="rl/score", side="below", limit=1.9, window=4, over="rise"),), remedy="x"
    )
    (alert,) = replay((rise,), [(step, {"rl/score": value}) for step, value in enumerate([0.0, 3.0, 0.0, 3.0])])
    assert alert.seen[0].value == pytest.approx(1.8)


def test_another_metric_may_scale_the_limit():
    """-3 standard errors of 0.01."""
    rule = Rule(
        id="n",
        when=(Condition(metric="rl/kl_k1", side="below", limit=-3.0, scale="rl/kl_k1_error", window=1),),
        remedy="x",
    )
    rows = [(step, {"rl/kl_k1": value, "rl/kl_k1_error": 0.01}) for step, value in enumerate([-0.02, -0.04])]
    assert [alert.step for alert in replay((rule,), rows)] == [1]


def test_conditions_hold_together_or_so_many_of_them():
    when = tuple(
        Condition(metric=f"rl/{name}", side="above", limit=1.0, window=1) for name in ("score", "reward", "entropy")
    )
    rows = [
        (0, {"rl/score": 2.0}),
        (1, {"rl/score": 2.0, "rl/reward": 2.0}),
        (2, {"rl/entropy": 2.0, "rl/reward": 2.0, "rl/score": 2.0}),
    ]
    assert [a.step for a in replay((Rule(id="all", when=when, remedy="x"),), rows)] == [2]
    (alert,) = replay((Rule(id="two", when=when, remedy="x", need=2),), rows)
    assert alert.step == 1
    assert alert.message == "rl/score 2 score is above the limit 1 and rl/reward 2 reward is above the limit 1"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_always_speaks(value: float):
    """Also for metrics that no rule and no catalogue names, at once, and once."""
    alerts = replay(DEFAULT_RULES, [(step, {"my/own": x}) for step, x in enumerate([1.0, value, value, 1.0, value])])
    assert [(a.step, a.rule, a.level, a.seen[0].metric) for a in alerts] == [
        (1, "not_finite", "STOP", "my/own"),
        (4, "not_finite", "STOP", "my/own"),
    ]
    json.dumps([alert.to_dict() for alert in alerts], allow_nan=False)


def test_the_line_says_what_is_done_and_what_to_do():
    rule = Rule(
        id="high", when=HIGH.when, remedy="Lower the learning rate", actions=(KL_COEF, Action(kind="roll_back"))
    )
    (alert,) = replay((rule,), [(step, {"rl/kl_k1": 0.75}) for step in range(3)])
    assert alert.line() == (
        "STOP high at step 2: rl/kl_k1 0.750 nats/token is above the limit 0.500. Doing: KL coefficient x 1.5, not above 1; "
        "back to the last good checkpoint. Lower the learning rate."
    )


def test_a_rule_that_proposes_does_nothing():
    rule = Rule(id="high", when=HIGH.when, remedy="x", actions=(Action(kind="raise_kl", bound=0.5),), mode="propose")
    watch = Watch((rule,))
    decisions = [watch.decide(step, {"rl/kl_k1": 0.75}) for step in range(3)]
    assert move_kl_coef(0.2, decisions[-1].actions) == 0.2
    assert "Proposed: KL coefficient to 0.5." in decisions[-1].alerts[0].line()


def decision(*actions: Action) -> Decision:
    watch = Watch((Rule(id="high", when=HIGH.when, remedy="x", actions=actions),))
    return [watch.decide(step, {"rl/kl_k1": 0.75}) for step in range(3)][-1]


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        (Action(kind="raise_kl", factor=1.5, bound=0.5), 0.2, 0.3),
        (Action(kind="raise_kl", factor=1.5, bound=0.5), 0.4, 0.5),
        (Action(kind="raise_kl", factor=1.5, bound=0.5), 0.8, 0.8),
        (Action(kind="raise_kl", bound=0.5), 0.2, 0.5),
        (Action(kind="lower_kl", factor=0.5, bound=0.05), 0.2, 0.1),
        (Action(kind="lower_kl", factor=0.5, bound=0.05), 0.06, 0.05),
        (Action(kind="lower_kl", factor=0.5, bound=0.05), 0.01, 0.01),
        (Action(kind="lower_kl", bound=0.05), 0.2, 0.05),
    ],
)
def test_the_kl_coefficient_moves_to_its_bound_and_never_the_other_way(action: Action, before: float, after: float):
    assert move_kl_coef(before, decision(action).actions) == pytest.approx(after)


def test_the_learning_rate_moves_by_factors_up_to_their_product():
    rule = Rule(id="r", when=(Condition(metric="rl/kl_k1", side="above", limit=0.5, window=1),), remedy="x", again_after=1,
                actions=(Action(kind="scale_rate", factor=1.5, bound=2.0),))  # fmt: skip
    watch = Watch((rule,))
    assert [watch.decide(step, {"rl/kl_k1": 0.9}).rate_factor for step in range(3)] == pytest.approx(
        [1.5, 2 / 1.5, 1.0]
    )


VALUES = st.lists(st.one_of(st.none(), st.floats(-0.1, 1.5)), max_size=40)


@settings(deadline=None, max_examples=40)
@given(kl=VALUES, score=VALUES, cut=st.integers(0, 40))
def test_a_resumed_watch_decides_as_the_whole_one(kl: list[float | None], score: list[float | None], cut: int):
    """Also after its state went through JSON, as in a checkpoint."""
    rows = [
        {
            name: value
            for name, value in (("rl/kl_k1", a), ("rl/score", b), ("rl/score_std", 1.0), ("rl/distinct_2", 0.5))
            if value is not None
        }
        for a, b in zip(kl, score, strict=False)
    ]
    whole = Watch(DEFAULT_RULES)
    expected = [whole.decide(step, row) for step, row in enumerate(rows)]
    first, second = Watch(DEFAULT_RULES), Watch(DEFAULT_RULES)
    found = [first.decide(step, row) for step, row in enumerate(rows[:cut])]
    second.load(json.loads(json.dumps(first.state(), allow_nan=False)))
    found += [second.decide(step, row) for step, row in enumerate(rows) if step >= cut]
    assert found == expected and second.spoken == whole.spoken and second.state() == whole.state()


def test_after_a_roll_back_the_windows_are_empty_and_the_start_and_the_counts_stay():
    rule = Rule(id="r", when=(Condition(metric="rl/length_tokens", side="above", limit=2.0, relative_to="start"),), remedy="x",
                actions=(Action(kind="roll_back"),), max_times=1, last=(Action(kind="stop"),))  # fmt: skip
    watch, kinds = Watch((rule,)), []
    for step, length in enumerate([10.0] * 5 + [30.0] * 6):
        found = watch.decide(step, {"rl/length_tokens": length})
        kinds += [(step, action.kind) for action in found.actions]
        if found.wants_roll_back:
            watch.forget()
    assert kinds == [(7, "roll_back"), (10, "stop")]


def test_checkpoints_to_go_back_to_are_of_calm_rows_only():
    rule = Rule(
        id="r",
        when=(Condition(metric="rl/kl_k1", side="above", limit=0.5, window=1),),
        remedy="x",
        actions=(Action(kind="roll_back"),),
    )
    watch, kept = Watch((rule,)), []
    for step in range(45):
        watch.decide(step, {"rl/kl_k1": 0.9 if step == 20 else 0.1})
        kept += [step] if watch.may_keep else []
    assert kept == [0, 40]
    quiet = Watch((rule,))
    quiet.decide(0, {"loss": 1.0})
    assert not quiet.may_keep, "a run whose metrics no such rule reads needs no checkpoint to go back to"


@settings(deadline=None, max_examples=25)
@given(values=st.lists(st.floats(0.02, 0.49), max_size=40))
def test_a_healthy_kl_is_never_said(values: list[float]):
    assert replay(DEFAULT_RULES, [(step, {"rl/kl_k1": value}) for step, value in enumerate(values)]) == []


def test_rules_watch_declared_metrics_and_say_what_to_do():
    assert len({rule.id for rule in DEFAULT_RULES}) == len(DEFAULT_RULES)
    for rule in DEFAULT_RULES:
        assert rule.remedy and not rule.remedy.endswith(".")
        assert all(describe(condition.metric) for condition in rule.when)


def test_a_rule_on_an_undeclared_metric_is_refused():
    with pytest.raises(ConfigError, match=r"did you mean rl/entropy\?"):
        Watch((Rule(id="x", when=(Condition(metric="rl/entropi", side="below", limit=0.1),), remedy="x"),))


def test_without_a_metric_a_rule_goes_or_lives_on_its_others():
    rules = {rule.id: rule for rule in without_metrics(DEFAULT_RULES, ("rl/missing_eos_share",))}
    assert "truncation" not in rules and "not_finite" in rules
    assert len(rules["hacking"].when) == 4
