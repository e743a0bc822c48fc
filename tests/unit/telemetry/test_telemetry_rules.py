"""What a recipe may change of the rules, and what the default ones do on the courses of runs that went wrong."""

import pytest

from fairlead.core.alert_sections import AlertsSection
from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError
from fairlead.telemetry import DEFAULT_RULES, choose_rules


def rules_of(*, kl_coef=0.2, **section):
    return {rule.id: rule for rule in choose_rules(parse_config(AlertsSection, section).model_dump(), kl_coef=kl_coef)}


def test_without_changes_the_rules_are_the_default_ones():
    assert tuple(rules_of().values()) == DEFAULT_RULES


def test_a_rule_may_be_changed_switched_off_and_added():
    rules = rules_of(
        rules={
            "kl_high": {
                "limits": {"rl/kl_k1": 0.3},
                "window": 5,
                "warmup": 9,
                "actions": [{"kind": "raise_kl", "factor": 1.2}],
            },
            "length": {"mode": "off"},
        },
        more=[
            {
                "id": "loss_jump",
                "when": [{"metric": "loss", "side": "above", "limit": 3}],
                "remedy": "Look",
                "actions": [{"kind": "stop"}],
            }
        ],
    )
    (condition,) = rules["kl_high"].when
    assert (condition.limit, condition.window, rules["kl_high"].warmup) == (0.3, 5, 9)
    assert [(a.kind, a.factor) for a in rules["kl_high"].actions] == [("raise_kl", 1.2)]
    assert rules["length"].mode == "off"
    assert rules["loss_jump"].level == "STOP" and rules["loss_jump"].when[0].metric == "loss"


def test_all_rules_may_only_propose_or_be_silent():
    assert {rule.mode for rule in rules_of(mode="propose").values()} == {"propose"}
    assert rules_of(mode="off") == {}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rules": {"kl_hihg": {"mode": "off"}}}, r"training.alerts.rules.kl_hihg is not a rule \(did you mean kl_high\?\)"),
        ({"rules": {"kl_high": {"limits": {"rl/entropy": 1.0}}}}, r"rules.kl_high.limits.rl/entropy=1.0 is not one limit of this rule"),
        ({"rules": {"kl_negative": {"limits": {"rl/kl_k1": 1.0}}}}, "is not one limit of this rule"),
        ({"more": [{"id": "length", "when": [{"metric": "loss", "side": "above", "limit": 3}], "remedy": "x"}]}, "more.0.id=length is taken"),
        ({"more": [{"id": "a", "when": [{"metric": "los", "side": "above", "limit": 3}], "remedy": "x"}]},
         r"more.0.when.0.metric: metric=los is not declared \(did you mean loss\?\)"),
        ({"rules": {"kl_high": {"actions": [{"kind": "stop", "factor": 2}]}}}, "factor=2.0 does not fit stop"),
        ({"more": [{"id": "a", "need": 2, "when": [{"metric": "loss", "side": "above", "limit": 3}], "remedy": "x"}]},
         "need=2 is more than there are conditions"),
        ({"rules": {"kl_high": {"actions": [{"kind": "raise_kl", "factor": 0.5}]}}}, "wrong way round for raise_kl"),
        ({"rules": {"kl_high": {"actions": [{"kind": "scale_rate"}]}}}, "does not fit scale_rate"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_where_it_stands(section, message):
    with pytest.raises(ConfigError, match=message):
        rules_of(**section)


def kinds(rules, *, bounded=False):
    """(rule, kind) of every action on the KL coefficient; with `bounded` of those that go to a bound at once."""
    return {
        (rule.id, action.kind)
        for rule in rules.values()
        for action in (*rule.actions, *rule.last)
        if action.kind in ("raise_kl", "lower_kl") and (not bounded or action.factor is None)
    }


def test_no_rule_says_that_it_moves_a_coefficient_that_is_not_there():
    """SFT, reward models and DPO have none; where it is 0 a factor leaves it there, and only going to a bound moves it."""
    everything = kinds(rules_of())
    assert {
        ("kl_runaway", "raise_kl"),
        ("kl_collapse", "lower_kl"),
        ("hacking", "raise_kl"),
        ("incoherence", "raise_kl"),
    } <= everything
    assert kinds(rules_of(kl_coef=None)) == set()
    assert kinds(rules_of(kl_coef=0.0)) == kinds(rules_of(), bounded=True) == {("incoherence", "raise_kl")}
    assert [a.kind for a in rules_of(kl_coef=None)["hacking"].actions] == ["snapshot", "roll_back"]


@pytest.mark.parametrize(
    ("kl_coef", "action", "message"),
    [
        (None, {"kind": "raise_kl", "bound": 0.5}, r"actions=raise_kl can do nothing: there is no KL coefficient in this training"),
        (0.0, {"kind": "raise_kl", "factor": 1.5}, r"actions=raise_kl can do nothing: the KL coefficient is 0, .*Set kl.kl_coef above 0"),
        (0.0, {"kind": "lower_kl", "factor": 0.5}, r"actions=lower_kl can do nothing"),
    ],
)  # fmt: skip
def test_an_action_of_the_recipe_that_could_do_nothing_is_refused(kl_coef, action, message):
    own = {"id": "own", "when": [{"metric": "loss", "side": "above", "limit": 3}], "remedy": "x", "actions": [action]}
    for section in ({"rules": {"kl_high": {"actions": [action]}}}, {"more": [own]}):
        with pytest.raises(ConfigError, match=message):
            rules_of(kl_coef=kl_coef, **section)
        assert rules_of(kl_coef=0.2, **section)
    assert rules_of(kl_coef=0.0, rules={"kl_high": {"actions": [{"kind": "raise_kl", "bound": 0.5}]}})
