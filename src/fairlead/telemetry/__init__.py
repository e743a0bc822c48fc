"""The catalogue of metrics (unit, meaning, healthy range), where they are written, and the rules that watch them and act.

Nothing leaves the machine: a sink writes a file that the user named.
"""

from fairlead.telemetry.alert_table import alert_table, kept_alerts
from fairlead.telemetry.alerts import Action, Alert, Condition, Decision, Rule, Seen, Watch, move_kl_coef, replay
from fairlead.telemetry.metrics import METRICS, Metric, describe, metrics_page
from fairlead.telemetry.pace import PHASES, Pace, phase_words, typical_pace
from fairlead.telemetry.rules import DEFAULT_RULES, choose_rules, without_metrics
from fairlead.telemetry.runbook import Failure, runbook, runbook_page
from fairlead.telemetry.sinks import FanOut, JsonlSink, read_metrics

__all__ = [
    "DEFAULT_RULES", "METRICS", "PHASES", "Action", "Alert", "Condition", "Decision", "Failure", "FanOut", "JsonlSink",
    "Metric", "Pace", "Rule", "Seen", "Watch", "alert_table", "choose_rules",
    "describe", "kept_alerts", "metrics_page", "move_kl_coef", "phase_words", "read_metrics", "replay", "runbook", "runbook_page", "typical_pace",
    "without_metrics",
]  # fmt: skip
