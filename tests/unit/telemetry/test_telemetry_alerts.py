"""Rules speak when something stays wrong, once, and stay silent about noise."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.errors import ConfigError
from fairlead.telemetry import RULES, Alert, AlertSink, Rule, Watch, describe


def _run(metric: str, values: list[float], rules: tuple[Rule, ...] = RULES) -> list[tuple[int, str]]:
    watch = Watch(rules)
    return [(a.step, a.level) for step, value in enumerate(values) for a in watch.check(step, {metric: value})]


def test_kl_above_the_band_speaks_once_after_three_steps():
    assert _run("rl/kl_k1", [0.2, 0.6, 0.6, 0.6, 0.6, 0.7]) == [(3, "WARN")]


def test_kl_that_goes_on_rising_is_said_again_as_stop():
    assert _run("rl/kl_k1", [0.6, 0.6, 0.6, 1.2, 1.2, 1.2, 1.2]) == [(2, "WARN"), (5, "STOP")]


def test_a_single_step_of_noise_is_not_said():
    assert _run("rl/kl_k1", [0.2, 3.0, 0.2, 3.0, 3.0, 0.2]) == []


def test_a_metric_that_came_back_may_be_said_again():
    assert _run("rl/kl_k1", [0.6] * 3 + [0.1] + [0.6] * 3) == [(2, "WARN"), (6, "WARN")]


def test_negative_kl_is_a_mismatch():
    assert _run("rl/kl_k1", [-0.05] * 6) == [(4, "WARN")]


def test_entropy_floor_is_relative_to_the_start():
    """Start 2.0 nats: WARN below 1.0, STOP below 0.3."""
    assert _run("rl/entropy", [2.0] * 5 + [1.01] * 3) == []
    assert _run("rl/entropy", [2.0] * 5 + [0.9] * 3) == [(7, "WARN")]
    assert _run("rl/entropy", [2.0] * 5 + [0.2] * 3) == [(7, "STOP")]


def test_relative_rules_work_for_log_probabilities():
    """Start -40 nats: WARN below -60."""
    assert _run("dpo/chosen_logprobs", [-40.0] * 5 + [-59.0] * 6) == []
    assert _run("dpo/chosen_logprobs", [-40.0] * 5 + [-61.0] * 6) == [(9, "WARN")]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_always_speaks(value: float):
    """Also for metrics that no rule and no catalogue names, at once, and once."""
    assert _run("my/own", [1.0, value, value, 1.0, value]) == [(1, "STOP"), (4, "STOP")]


def test_the_message_says_value_limit_and_remedy():
    alerts: list[Alert] = []
    sink = AlertSink(alerts.append)
    for step in range(3):
        sink.log(step, {"rl/kl_k1": 0.75, "loss": 1.0})
    sink.close()
    assert [a.line() for a in alerts] == [
        "WARN step 2: rl/kl_k1 0.750 nats/token is above the limit 0.500. Raise kl_coef or lower the learning rate."
    ]


@settings(deadline=None, max_examples=25)
@given(values=st.lists(st.floats(0.0, 0.49), max_size=40))
def test_a_healthy_kl_is_never_said(values: list[float]):
    assert _run("rl/kl_k1", values) == []


def test_rules_watch_declared_metrics_and_warn_before_they_stop():
    for rule in RULES:
        assert describe(rule.metric).name == rule.metric and rule.remedy and not rule.remedy.endswith(".")
        if rule.stop is not None and rule.warn is not None:
            assert (rule.warn < rule.stop) == (rule.side == "above")


def test_a_rule_on_an_undeclared_metric_is_refused():
    with pytest.raises(ConfigError, match=r"did you mean rl/entropy\?"):
        Watch((Rule(metric="rl/entropi", side="below", warn=0.1, stop=None, remedy="x"),))
