"""What verifiers of a final answer share: the references of a prompt, the answer of a completion, and what it means that one is missing."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from fairlead.core.records import Completion, Prompt
from fairlead.rewards.verifiers.config import ExactSection, MathSection
from fairlead.rewards.verifiers.extraction import find_answer
from fairlead.rewards.verifiers.references import read_answers

Section = TypeVar("Section", bound=ExactSection | MathSection)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerVerifier(ABC, Generic[Section]):
    """Compares the final answer with references. Stateless; picklable."""

    section: Section

    def validate(self, prompt: Prompt) -> bool:
        """Does it apply? Raises DataError for a reference that cannot be used."""
        return bool(read_answers(prompt, self.section.field))

    def check(self, prompt: Prompt, completion: Completion) -> float:
        """How right it is, in [0, 1]: 0 without an answer, NaN for a prompt without a reference."""
        references = read_answers(prompt, self.section.field)
        if not references:
            return float("nan")
        answer = find_answer(completion.text, self.section.extract, after=self.section.after)
        return 0.0 if answer is None else self.compare(answer, references)

    @abstractmethod
    def compare(self, answer: str, references: tuple[str, ...]) -> float:
        """An answer with the references, any of which will do."""
