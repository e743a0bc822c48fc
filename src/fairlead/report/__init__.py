"""One self-contained HTML page a run: the answer, the gates, the flow stage by stage, the lineage.

`build_report` is pure: dataclasses of `core.summary` in, text out. Nothing is loaded from the network, and no text of a run ever
becomes markup.
"""

from fairlead.report.page import build_report
from fairlead.report.run import LineageNode, RunReport, StageReport

__all__ = ["LineageNode", "RunReport", "StageReport", "build_report"]
