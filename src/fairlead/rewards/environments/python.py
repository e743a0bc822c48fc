"""Programs in Python as a tool: each runs in the box of rewards/sandbox from nothing, and the policy reads what it prints.

Example:
    PythonTool(section).answer(turn)       # of "<python>print(2 ** 10)</python>": "1024"
"""

import math
from dataclasses import dataclass

from fairlead.core.protocols import Observation, Turn
from fairlead.core.tool_section import PythonSection
from fairlead.rewards import sandbox
from fairlead.rewards.environments.calls import ToolError, answer_calls, find_calls
from fairlead.rewards.sandbox import Limits, run_python


@dataclass(frozen=True, slots=True)
class PythonTool:
    """Answers the turns that call it. Stateless; picklable."""

    section: PythonSection

    def __post_init__(self) -> None:
        if not self.section.allow_unsandboxed:
            sandbox.require_sandbox()

    def answer(self, turn: Turn) -> Observation | None:
        """What the programs of the turn print, in order; None when there is none."""
        tag = self.section.tag
        num = max(1, len(find_calls(turn.text, tag)))
        wall_s = min(self.section.program_timeout_s, self.section.timeout_s / (2 * num))
        return answer_calls(turn.text, tag, lambda code: self._run(code, wall_s=wall_s))

    def _run(self, code: str, *, wall_s: float) -> str:
        """What a program prints, without the white space at its end.

        Raises:
            ToolError: it ended with an error, was too slow or printed too much.
        """
        s = self.section
        limits = Limits(
            wall_s=wall_s, cpu_s=math.ceil(wall_s), memory_bytes=s.max_memory_mb << 20, processes=s.max_processes
        )
        ran = run_python({"main.py": code.strip("\n")}, limits=limits, is_boxed=not s.allow_unsandboxed)
        if ran.ended:
            said = {"time": f"it took longer than {wall_s:g} s", "output": "it printed too much"}
            raise ToolError(said.get(ran.ended, "it was lost"))
        if ran.exit != 0:
            words = ran.stderr.strip().splitlines()
            raise ToolError(words[-1][: s.max_output_chars] if words else f"it ended with signal {ran.signal}"
                            if ran.exit is None else f"it ended with exit status {ran.exit}")  # fmt: skip
        return ran.stdout.rstrip()[: s.max_output_chars]
