"""Recipe section of rollouts of several turns: which environments answer the turns of a policy, and for how long.

It stands with the policy that is trained in it (`policies.NAME.tools`) and is read by `rewards/environments`; here, because neither may
import the other.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import explain

_TAG = r"^[A-Za-z_][A-Za-z0-9_]*$"


class _Environment(Config):
    """What every environment has."""

    timeout_s: float = Field(default=10.0, gt=0)
    """Longest time for the answer to one turn, seconds; a slower one is ended, tried once more, and then its rollout is dropped."""


class CalculatorSection(_Environment):
    """Arithmetic: whole numbers and decimals with + - * / // % ** and parentheses, computed exactly."""

    kind: Literal["calculator"]
    """Which environment."""
    tag: str = Field(default="calculator", pattern=_TAG)
    """How a turn calls it: `<calculator>2 * (3 + 4)</calculator>`."""


class PythonSection(_Environment):
    """Programs in Python in the sandbox of the code verifier; each starts from nothing, and the policy reads what it prints."""

    kind: Literal["python"]
    """Which environment."""
    tag: str = Field(default="python", pattern=_TAG)
    """How a turn calls it: `<python>print(2 ** 10)</python>`."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest time for the answer to one turn, seconds; a slower one is ended, tried once more, and then its rollout is dropped."""
    program_timeout_s: float = Field(default=5.0, gt=0)
    """Longest time for one program, seconds; of a slower one the policy is told that it took too long."""
    max_output_chars: int = Field(default=2000, ge=1)
    """What a program prints is cut to its first so many characters."""
    max_memory_mb: int = Field(default=512, ge=64)
    """Address space of each process, MiB."""
    max_processes: int = Field(default=8, ge=1)
    """Processes and threads at a time."""
    allow_unsandboxed: bool = False
    """Run programs without the sandbox, with limits of time and memory alone: they can read and write what you can, and use the network."""

    @model_validator(mode="after")
    def _fits_a_program(self) -> Self:
        if self.program_timeout_s > self.timeout_s / 2:
            raise ValueError(explain("program_timeout_s", self.program_timeout_s, f"is cut by timeout_s={self.timeout_s:g}, of which programs get "
                                     "half", expected=f"<= {self.timeout_s / 2:g}", remedy="Lower it or raise timeout_s"))  # fmt: skip
        return self


class CustomEnvironmentSection(_Environment):
    """An environment of your own."""

    kind: Literal["custom"]
    """Which environment."""
    build: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:function`; called with the options, it returns an object with `answer(turn)`; see docs/stages/tools.md."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the function."""


EnvironmentSection = Annotated[
    CalculatorSection | PythonSection | CustomEnvironmentSection, Field(discriminator="kind")
]


class ToolsSection(Config):
    """Rollouts of several turns: the policy writes one, environments answer it, and the policy goes on."""

    environments: tuple[EnvironmentSection, ...] = Field(min_length=1)
    """All are asked after each turn, and what they say is joined in this order; a turn that none answers ends the rollout."""
    max_turns: int = Field(default=4, ge=1)
    """Turns of a rollout; one that would go on then counts as cut off. They share max_new_tokens."""
    max_observation_tokens: int = Field(default=64, ge=1)
    """Longest observation with what the template writes around it, tokens; the text of a longer one is cut and counted. A prompt needs room
    beside (max_turns - 1) of them and max_new_tokens: with all defaults 192 tokens of text.max_length are left for it."""
    role: Literal["tool", "user"] = "tool"
    """Role of observations in the chat template; user for templates that know no tools."""
    error_penalty: float = Field(default=0.0, ge=0)
    """Taken off at the last token of a turn for each of its calls that could not be answered as asked, reward units."""

    @property
    def max_added_tokens(self) -> int:
        """Tokens that observations add to a rollout, at most."""
        return (self.max_turns - 1) * self.max_observation_tokens
