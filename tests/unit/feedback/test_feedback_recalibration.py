import pytest

from fairlead.core.errors import ConfigError
from fairlead.feedback.recalibration import RecalibrationRule, may_go_on, may_rate, may_scale, recalibration_due
from fairlead.stats.intervals import Interval, undefined

RULE = RecalibrationRule()


def test_items_days_alarms_and_guidelines_are_reasons():
    assert not recalibration_due(RULE, items_since=499, days_since=13.9).is_due
    assert recalibration_due(RULE, items_since=500, days_since=0).reasons == (
        "500 items since the last round, at most 500",
    )
    assert recalibration_due(RULE, items_since=0, days_since=14).reasons == (
        "14 days since the last round, at most 14",
    )
    due = recalibration_due(RULE, items_since=10, days_since=1, changed_at=431, guideline_changed=True)
    assert due.rerate_from == 431
    assert len(due.reasons) == 2
    with pytest.raises(ConfigError, match="is no schedule"):
        RecalibrationRule(every_items=0)


def test_nobody_rates_before_the_gate_beyond_the_cap():
    assert may_rate(gate="pass", num_production=10**6, cap_before_gate=0).is_granted
    assert not may_rate(gate="continue", num_production=0, cap_before_gate=0).is_granted
    assert may_rate(gate="continue", num_production=19, cap_before_gate=20).is_granted
    refused = may_rate(gate="undecided", num_production=20, cap_before_gate=20)
    assert (refused.is_granted, refused.reason) == (False, "calibration is not passed (undecided)")


def test_scaling_and_pausing():
    assert may_scale(Interval(0.61, 0.5, 0.7, 100)).is_granted
    assert not may_scale(Interval(0.6, 0.5, 0.7, 100)).is_granted
    assert may_scale(Interval(0.5, 0.4, 0.6, 100), override="pilot, agreed with the lead").reason.endswith(
        "pilot, agreed with the lead"
    )
    assert not may_scale(undefined("unanimous", n=3), override="  ").is_granted
    assert not may_go_on(Interval(0.3, 0.2, 0.39, 100)).is_granted
    assert may_go_on(Interval(0.3, 0.2, 0.41, 100)).is_granted
    assert may_go_on(undefined("unanimous", n=3)).is_granted
