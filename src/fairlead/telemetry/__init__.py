"""The catalogue of metrics (unit, meaning, healthy range), where they are written, and the rules that watch them.

Nothing leaves the machine: a sink writes a file that the user named.
"""

from fairlead.telemetry.alerts import RULES, Alert, AlertSink, Rule, Watch
from fairlead.telemetry.metrics import METRICS, Metric, describe, metrics_page
from fairlead.telemetry.pace import Pace, typical_pace
from fairlead.telemetry.sinks import FanOut, JsonlSink, read_metrics

__all__ = [
    "METRICS", "RULES", "Alert", "AlertSink", "FanOut", "JsonlSink", "Metric", "Pace", "Rule", "Watch", "describe", "metrics_page", "read_metrics",
    "typical_pace",
]  # fmt: skip
