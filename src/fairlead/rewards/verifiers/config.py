"""Recipe sections of verifiers: one class a kind, told apart by `kind`."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import explain
from fairlead.rewards.verifiers.extraction import Policy

Step = Literal["accents", "case", "punctuation", "articles", "space"]


class VerifierBase(Config):
    """What every verifier has."""

    timeout_s: float = Field(default=10.0, gt=0)
    """Longest time for one completion, seconds; a slower check is ended and the completion counted as not scored."""


class ExactSection(VerifierBase):
    """1 for an answer that equals a reference, 0 otherwise."""

    kind: Literal["exact"]
    """Which verifier."""
    field: str = "reference"
    """Field of the prompt's meta with the right answer: text, a number, or a list of which any will do."""
    extract: tuple[Policy, ...] = Field(default=("whole",), min_length=1)
    """Where the answer stands in the completion; the first policy that finds something decides."""
    after: str | None = None
    """Only what follows the last occurrence of this mark counts, such as `</think>`; without the mark there is no answer. null is off."""
    normalise: tuple[Step, ...] = ("case", "space")
    """What is evened out on both sides: accents, case, punctuation, articles (a, an, the), space."""


class FuzzySection(ExactSection):
    """How near an answer is to a reference, 0 to 1."""

    kind: Literal["fuzzy"]  # pyright: ignore[reportIncompatibleVariableOverride] - narrows the discriminator
    """Which verifier."""
    normalise: tuple[Step, ...] = ("case", "punctuation", "articles", "space")
    """What is evened out on both sides: accents, case, punctuation, articles (a, an, the), space."""
    measure: Literal["token_f1", "edits"] = "token_f1"
    """token_f1: overlap of words. edits: 1 - edit distance of characters / length of the longer text."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Similarity from which the score is 1, else 0; null gives the similarity itself."""


class MathSection(VerifierBase):
    """1 for an answer that equals the reference as mathematics, 0 otherwise."""

    kind: Literal["math"]
    """Which verifier."""
    field: str = "answer"
    """Field of the prompt's meta with the right answer: a number, a formula (LaTeX or plain), a word, or a list of which any will do."""
    extract: tuple[Policy, ...] = Field(default=("boxed", "hash", "phrase", "last_number"), min_length=1)
    """Where the answer stands in the completion; the first policy that finds something decides."""
    after: str | None = None
    """Only what follows the last occurrence of this mark counts, such as `</think>`; without the mark there is no answer. null is off."""
    tolerance: float = Field(default=1e-6, ge=0, lt=0.1)
    """Relative error that is allowed between numbers of which one is not whole; whole numbers must be equal."""


class RegexSection(VerifierBase):
    """1 where a regular expression matches, 0 elsewhere."""

    kind: Literal["regex"]
    """Which verifier."""
    pattern: str | None = None
    """One pattern for all prompts, in Python's syntax; null takes the prompt's own."""
    field: str = "pattern"
    """Field of the prompt's meta with its pattern."""
    match: Literal["search", "whole"] = "search"
    """search: anywhere in the answer. whole: all of it."""
    extract: tuple[Policy, ...] = Field(default=("whole",), min_length=1)
    """What is matched; the first policy that finds something decides."""
    after: str | None = None
    """Only what follows the last occurrence of this mark counts, such as `</think>`; without the mark there is no answer. null is off."""
    ignore_case: bool = False
    """Letters match in both cases."""
    multiline: bool = False
    """^ and $ match at every line."""
    dot_all: bool = False
    """A dot matches the end of a line too."""

    def flags(self) -> int:
        """Of `re.compile`."""
        return re.IGNORECASE * self.ignore_case | re.MULTILINE * self.multiline | re.DOTALL * self.dot_all

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(explain("pattern", pattern, f"is not a regular expression ({error})", expected="Python's syntax",
                                     remedy="Fix the pattern")) from error  # fmt: skip
        return pattern


class JsonSchemaSection(VerifierBase):
    """1 for a reply that is JSON and fits a schema, 0 for another."""

    kind: Literal["json_schema"]
    """Which verifier."""
    json_schema: dict[str, Any] | None = None
    """One schema for all prompts; null takes the prompt's own."""
    field: str = "schema"
    """Field of the prompt's meta with its schema."""
    extract: Literal["whole", "last_block"] = "whole"
    """What is read: the whole reply, or its last fenced block where it has one."""


class InstructionsSection(VerifierBase):
    """Does a reply follow its prompt's instructions on form, as in IFEval?"""

    kind: Literal["instructions"]
    """Which verifier."""
    ids_field: str = "instruction_id_list"
    """Field of the prompt's meta with the list of instructions."""
    kwargs_field: str = "kwargs"
    """Field of the prompt's meta with the options of each."""
    reading: Literal["strict", "loose"] = "strict"
    """strict: the reply as it is. loose: also without its first or last line or asterisks; to measure with, for a policy learns to use it."""
    score: Literal["all", "share"] = "all"
    """all: 1 when every instruction is followed, else 0. share: of those that are."""
    after: str | None = None
    """Only what follows the last occurrence of this mark counts, such as `</think>`; without the mark there is no answer. null is off."""


class CodeSection(VerifierBase):
    """A program in Python, by its tests, in a sandbox."""

    kind: Literal["code"]
    """Which verifier."""
    field: str = "tests"
    """Field of the prompt's meta with a list of tests: {stdin, stdout}, {call, args, returns}, or statements."""
    extract: Literal["last_block", "first_block", "all_blocks", "whole"] = "last_block"
    """Where the program stands: fenced blocks of Python, or the whole reply."""
    score: Literal["all", "share"] = "all"
    """all: 1 when every test passes, else 0. share: of the tests that pass."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest time for one completion, seconds; a slower check is ended and the completion counted as not scored."""
    test_timeout_s: float = Field(default=5.0, gt=0)
    """Longest time for one test, seconds; a slower program has failed it. Calls and statements share the sum of their times."""
    max_memory_mb: int = Field(default=512, ge=64)
    """Address space of each process, MiB."""
    max_processes: int = Field(default=8, ge=1)
    """Processes and threads at a time."""
    allow_unsandboxed: bool = False
    """Run programs without the sandbox, with limits of time and memory alone: they can read and write what you can, and use the network."""

    @model_validator(mode="after")
    def _fits_a_test(self) -> Self:
        if (
            self.test_timeout_s > self.timeout_s / 2
        ):  # a check that has used half of its time is judged by what passed till then
            raise ValueError(explain("test_timeout_s", self.test_timeout_s, f"is cut by timeout_s={self.timeout_s:g}, of which tests get half",
                                     expected=f"<= {self.timeout_s / 2:g}", remedy="Lower it or raise timeout_s"))  # fmt: skip
        return self


class CustomSection(VerifierBase):
    """A verifier of your own."""

    kind: Literal["custom"]
    """Which verifier."""
    build: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:function`; called with the options, it returns an object with `version`, `validate` and `check`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the function."""


VerifierSection = Annotated[
    ExactSection
    | FuzzySection
    | MathSection
    | RegexSection
    | JsonSchemaSection
    | InstructionsSection
    | CodeSection
    | CustomSection,
    Field(discriminator="kind"),
]
