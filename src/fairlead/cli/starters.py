"""First projects that are small enough to finish: summaries, the tone of customer mail, questions over a corpus.

Each has a guideline of two criteria, starter prompts and demonstrations of our own writing, tables to fill in, and declared criteria.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fairlead.cli.composing import FINISHED, HEDGES, LENGTH, Plan, behaviour
from fairlead.cli.recipe_text import Key

_FOLDER = Path(__file__).parent / "starter_files"
_OWN_FILES = ("guideline.md", "prompts.jsonl", "demonstrations.jsonl")
_SHARED_FILES = ("README.md", "items.csv", "votes.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """One small project."""

    name: str
    goal: str
    slices: Mapping[str, float]
    """Slice -> share of its starter prompts."""
    behaviours: tuple[Key, ...]
    max_length: int
    max_new_tokens: int

    def shape(self, plan: Plan) -> Plan:
        """The plan with this project's data and criteria; a model with a short context keeps its own lengths."""
        return replace(plan, slices=self.slices, behaviours=self.behaviours, max_length=min(self.max_length, plan.max_length),
                       max_new_tokens=min(self.max_new_tokens, plan.max_new_tokens),
                       heldout=Key(6, "prompts kept back, a count while there are few; write 0.1 (a share) once you have 200"))  # fmt: skip

    def files(self) -> dict[str, str]:
        """Text of every file but the recipe, by name."""
        own = {name: (_FOLDER / self.name / name).read_text(encoding="utf-8") for name in _OWN_FILES}
        shared = {name: (_FOLDER / name).read_text(encoding="utf-8") for name in _SHARED_FILES}
        return {**own, **shared, "README.md": shared["README.md"].replace("GOAL", self.goal)}


SUMMARISE = Starter(
    name="summarise", goal="summaries that keep every fact and say nothing twice", max_length=512, max_new_tokens=96,
    slices={"notice": 0.34, "report": 0.33, "mail": 0.33},
    behaviours=(
        behaviour("aim: 10 points fewer summaries that open with a phrase about themselves", id="preamble", direction="down", metric="phrases",
                  min_effect=0.1, phrases=["here is a summary", "this text", "the text", "the author", "in summary", "to summarise"]),
        behaviour("aim: 10 points more summaries of one or two sentences", id="two_sentences", direction="up", metric="regex", min_effect=0.1,
                  pattern=r"^\s*[^.!?]+[.!?](\s+[^.!?]+[.!?])?\s*$"),
        FINISHED,
        behaviour("guard: share of repeated word pairs must not rise", id="repetition", direction="down", metric="repetition",
                  min_effect=0.05, guard=True),
    ),
)  # fmt: skip
TONE = Starter(
    name="tone", goal="customer mail that is kind and says what happens next", max_length=512, max_new_tokens=128,
    slices={"delivery": 0.25, "billing": 0.25, "fault": 0.25, "question": 0.25},
    behaviours=(
        behaviour("aim: 10 points fewer mails that blame or recite policy", id="blame", direction="down", metric="phrases", min_effect=0.1,
                  phrases=["you should have", "you failed", "you did not", "as stated", "as already explained", "our policy", "unfortunately"]),
        behaviour("aim: 10 points more mails that name a next step of ours", id="next_step", direction="up", metric="regex", min_effect=0.1,
                  pattern=r"(?i)\b(I|we)( have|'ve|'ll| will| am| are)\b"),
        FINISHED,
        LENGTH,
    ),
)  # fmt: skip
CORPUS_QA = Starter(
    name="corpus-qa", goal="answers that stand on the given passages, cite them, and say when they do not know", max_length=512, max_new_tokens=96,
    slices={"answered": 0.5, "two_passages": 0.25, "not_in_corpus": 0.25},
    behaviours=(
        behaviour("aim: 10 points more answers that cite a passage", id="cites", direction="up", metric="regex", min_effect=0.1, pattern=r"\[\d+\]"),
        behaviour("aim: 5 points fewer answers that hedge", id="hedging", direction="down", metric="phrases", min_effect=0.05, phrases=list(HEDGES)),
        FINISHED,
        LENGTH,
    ),
)  # fmt: skip
STARTERS: Mapping[str, Starter] = {s.name: s for s in (SUMMARISE, TONE, CORPUS_QA)}
