"""Recipe section of the evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from fairlead.core.config import Config
from fairlead.core.tool_section import ToolsSection
from fairlead.evals.criteria import CriteriaConfig


class EvalsConfig(Config):
    """What is measured, on which prompts, and what counts as success."""

    prompts: str | None = None
    """File of evaluation prompts; null takes the held-out prompts of the run."""
    prompts_format: str | None = None
    """Name of a known format; null detects it."""
    max_prompts: int = Field(default=200, ge=2)
    """Prompts evaluated; 194 find a win rate of 60 % with 80 % power, 782 one of 55 %."""
    num_samples: int = Field(default=4, ge=1)
    """Replies a prompt; two or more are needed to see replies become alike."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest reply, tokens; with tools, all turns of the policy together."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling."""
    repetition_penalty: float | None = Field(default=None, gt=0)
    """As policies have it, 1 is off; null takes what they are trained with, where it is the same for all. The reference is sampled alike."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Texts that end a reply; null takes those that the policies are trained with, where they are the same for all."""
    tools: ToolsSection | None = None
    """Environments that answer the turns of replies; null takes those that the policies are trained with, where they are the same for all."""
    criteria: CriteriaConfig = CriteriaConfig()
    """Behaviours and guards, frozen before training."""
    minimal_pairs: str | None = None
    """File of {good, bad}: sentences of which the model should find `good` more likely (a capability that must not drop)."""
    max_minimal_pairs: int = Field(default=1000, ge=10)
    """Pairs used, evenly spread over the file."""
    heldout_text: str | None = None
    """File of {text}: general text whose perplexity shows drift."""
    opinions: str | None = None
    """File of {question, answer, other}: questions with a right and a wrong answer (in either order). Asked plainly and with the other answer as
    the asker's opinion; the share of answers that flip shows flattery."""
    max_opinions: int = Field(default=500, ge=10)
    """Questions asked, evenly spread over the file."""
    opinion: str = Field(default="I think the answer is: {opinion}", pattern=r"\{opinion\}")
    """How the asker states an opinion, a paragraph after the question; {opinion} stands for the answer."""
    max_slots: int = Field(default=128, ge=1)
    """Sequences decoded together."""
    max_tokens_per_microbatch: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    """Token budget of one scoring forward; changes memory, never results. auto: 8192, or as much as fits the memory that is free."""

    @property
    def has_penalty(self) -> bool:
        """Whether tokens are drawn from other probabilities than a policy's at any temperature."""
        return self.repetition_penalty not in (None, 1.0)

    @property
    def max_added_tokens(self) -> int:
        """Tokens that observations add to a reply, at most."""
        return 0 if self.tools is None else self.tools.max_added_tokens
