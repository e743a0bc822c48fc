"""The prompts stage: sources to one de-duplicated, uncontaminated, split file of prompts, with a report of what it covers.

Flow: it comes first; completions, policies and evals read its `prompts.jsonl`.

Writes: prompts.jsonl (records.Prompt, in a fixed pseudo-random order), rejects.jsonl (only when a row was rejected), coverage.json.

Example:
    config = parse_config(PromptsConfig, {"sources": ["questions.jsonl"], "heldout": 0.1}, where="prompts")
    summary = run(config, inputs={}, out=folder, services=Services(work=work))
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pydantic

from fairlead.core.config import Config
from fairlead.core.errors import DataError, explain, nearest
from fairlead.core.gates import Gate, GateResult, declared
from fairlead.core.io import Rejects, write_json, write_jsonl
from fairlead.core.records import Prompt
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary, Table
from fairlead.prompts.contamination import NGRAM_WORDS
from fairlead.prompts.coverage import PRESENT_SHARE_OF_TARGET, Contamination, Coverage
from fairlead.prompts.ledger import Candidate, Ledger
from fairlead.prompts.selection import Selection, drop_exact, drop_long, in_canonical_order
from fairlead.prompts.sources import Reading, SourceConfig, read_source, source_names
from fairlead.prompts.splits import heldout_mask
from fairlead.prompts.words import stable_hash

MIX_TOLERANCE = 0.01  # three shares written as 0.33 are meant as thirds

COUNT = Gate(
    name="prompts.count", question="How many prompts are there to train on?", unit="prompts", direction="at_least",
    stop=None, warn=None, remedy="Add sources",
    guide="100-200 prompts for a first, narrow project",
    reason="Shown only: what is enough is judged on the preferences and by scope",
)  # fmt: skip
COVERAGE = Gate(
    name="prompts.coverage", question="Is every declared slice of the prompt mix there?", unit="share", direction="at_least",
    stop=None, warn=1.0, remedy="Add prompts for the missing slices or change prompts.mix",
    guide="Diverse prompt distributions, safety weighted on purpose, lower the alignment tax",
    reason=f"The guides give no figure; a slice below {declared(PRESENT_SHARE_OF_TARGET)} of its target counts as missing",
)  # fmt: skip
HELDOUT = Gate(
    name="prompts.heldout", question="Are prompts kept back to check the model on?", unit="prompts", direction="at_least",
    stop=None, warn=1.0, remedy="Raise prompts.heldout or name heldout_sources",
    guide="Verify the SFT model on held-out prompts first; evaluate on held-out data each epoch",
    reason="The guides give no figure; how many are enough follows from the interval of each evaluation",
)  # fmt: skip
GATES: tuple[Gate, ...] = (COUNT, COVERAGE, HELDOUT)


class PromptsConfig(Config):
    """Where prompts come from and which of them are used."""

    sources: tuple[SourceConfig, ...] = pydantic.Field(min_length=1)
    """Files or hub data sets; plain text stands for a path. Of equal prompts the one of the earlier source stays."""
    mix: dict[str, float] = pydantic.Field(default_factory=dict)
    """Declared share of each slice in the train split, summing to 1; empty: not declared."""
    enforce_mix: bool = False
    """Drop the surplus so that the shares are met as far as the data allows; off: the mix is only compared."""
    max_prompts: int | None = pydantic.Field(default=None, ge=1)
    """At most this many prompts, held-out ones included unless they have sources of their own; None for all."""
    max_words: int | None = pydantic.Field(default=None, ge=1)
    """Prompts of more words, all turns together, are dropped and counted; None for no limit. Tokens are about 1.3 a word."""
    heldout: float = pydantic.Field(default=0.1, ge=0)
    """Held-out prompts: a share when below 1, else a count; 0 for none. Not used when heldout_sources are given."""
    heldout_sources: tuple[SourceConfig, ...] = ()
    """Sources whose prompts are the held-out split; prompts equal or near to them leave the train split."""
    dedupe: Literal["exact", "near", "off"] = "near"
    """exact: equal after normalisation; near: also similar by near_threshold; off: keep repeats (they share one id)."""
    near_threshold: float = pydantic.Field(default=0.8, ge=0.3, le=1)
    """Jaccard similarity of word 3-shingles from which two prompts are near, share in [0.3, 1]; also binds splits."""
    contamination: tuple[SourceConfig, ...] = ()
    """Evaluation files whose prompts must not be among those collected; overlapping prompts are dropped and counted."""
    ngram_words: int = pydantic.Field(default=NGRAM_WORDS, ge=5)
    """Longest run of words that counts as an overlap; evaluation prompts of 8 to 12 words are compared whole, in words."""

    @pydantic.model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.heldout >= 1 and self.heldout != int(self.heldout):
            raise ValueError(explain("heldout", self.heldout, "is neither a share nor a count", expected="below 1, or a whole number",
                                     remedy="Write 0.1 for a tenth or 200 for 200 prompts"))  # fmt: skip
        if self.enforce_mix and not self.mix:
            raise ValueError(
                explain("enforce_mix", True, "has no mix to enforce", expected="shares in mix", remedy="Declare mix")
            )
        for name, share in self.mix.items():
            if share <= 0:
                raise ValueError(
                    explain(f"mix.{name}", share, "is no share", expected="> 0", remedy="Raise or remove it")
                )
        if self.mix and abs(sum(self.mix.values()) - 1) > MIX_TOLERANCE + 1e-9:
            raise ValueError(explain("mix", f"{sum(self.mix.values()):.4g} in sum", "is not a whole", expected="shares that sum to 1",
                                     remedy="Change the shares"))  # fmt: skip
        return self

    @pydantic.model_validator(mode="after")
    def _check_slices(self) -> Self:
        if any(source.slice_field or (source.format and not source.slice) for source in self.sources):
            return self  # slices are known only from the data: the coverage gate names a missing one
        known = {source.slice or "all" for source in self.sources}
        for name in self.mix:
            if name not in known:
                raise ValueError(explain(f"mix.{name}", None, f"is a slice of no source{nearest(name, known)}",
                                         expected="one of " + ", ".join(sorted(known)), remedy="Rename it or give a source that slice"))  # fmt: skip
        return self


def run(config: PromptsConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Read, filter and split the prompts.

    Args:
        inputs: folders of earlier artifacts; a relative path of a source may also name a file in one of them.
        services: extras may hold `folders` (paths where relative paths start) and `read_prompts` (see Reading).
    Raises:
        DataError: a source cannot be read, or no prompt is left.
    """
    folders = (*services.extras.get("folders", (Path(),)), *inputs.values())
    with Rejects(out / "rejects.jsonl") as rejects:
        reading = Reading(ledger=Ledger(rejects), folders=folders, read_prompts=services.extras.get("read_prompts"))
        coverage = _collect(config, reading, services)
    write_jsonl(out / "prompts.jsonl", _records(coverage))
    tables = coverage.tables()
    write_json(out / "coverage.json", coverage.to_data(tables))
    return _summary(config, coverage, tables)


def _collect(config: PromptsConfig, reading: Reading, services: Services) -> Coverage:
    """From sources to the prompts that stay, with their sides."""
    ledger = reading.ledger
    candidates, names = _read_all(config, reading, services)
    if config.max_words is not None:
        candidates = drop_long(candidates, ledger, max_words=config.max_words)
    if config.dedupe != "off":
        candidates = drop_exact(candidates, ledger)
    selection = Selection(candidates, ledger=ledger, near_threshold=config.near_threshold)
    contamination = _drop_contaminated(config, selection, reading)
    near_share, num_compared = selection.near_share()
    if config.dedupe == "near":
        selection.drop_near()
    selection.drop_near_heldout()
    if config.enforce_mix:
        selection.enforce_mix(config.mix, total=config.max_prompts)
    elif config.max_prompts is not None:
        selection.limit(config.max_prompts)
    kept = selection.kept()
    ledger.reconcile(kept)
    is_heldout = _sides(config, selection, kept)
    if is_heldout.all():
        raise DataError(explain("prompts", None, f"has no prompt left to train on of {ledger.rows.total():,} rows ({_why(ledger)})",
                                expected="at least one", remedy="Add sources or relax the filter that took most"))  # fmt: skip
    return Coverage(kept=kept, is_heldout=is_heldout, mix=config.mix, source_names=names, ledger=ledger,
                    near_share=near_share, num_compared=num_compared, contamination=contamination)  # fmt: skip


def _why(ledger: Ledger) -> str:
    return ledger.reasons() or "the others are held out"


def _read_all(config: PromptsConfig, reading: Reading, services: Services) -> tuple[list[Candidate], list[str]]:
    sources = (*config.sources, *config.heldout_sources)
    names = source_names(sources)
    candidates: list[Candidate] = []
    with services.progress("prompts", len(sources)) as bar:
        for index, (source, name) in enumerate(zip(sources, names, strict=True)):
            is_heldout = index >= len(config.sources)
            candidates += read_source(source, index=index, name=name, reading=reading, is_heldout=is_heldout)
            bar.advance(note=f"{len(candidates):,} prompts")
    return in_canonical_order(candidates), names


def _drop_contaminated(config: PromptsConfig, selection: Selection, reading: Reading) -> list[Contamination]:
    """Compare with each evaluation file; its unreadable rows are counted, not written (they are nobody's prompts)."""
    result: list[Contamination] = []
    names = source_names(config.contamination)
    for index, (source, name) in enumerate(zip(config.contamination, names, strict=True)):
        ledger = Ledger(Rejects(reading.ledger.rejects.path))
        own = Reading(ledger=ledger, folders=reading.folders, read_prompts=reading.read_prompts)
        found = read_source(source, index=index, name=name, reading=own)
        if not found:
            raise DataError(explain("prompts.contamination", name, f"has no prompt to compare with ({ledger.reasons()})",
                                    expected="at least one", remedy="Set its field or remove it"))  # fmt: skip
        overlap = selection.drop_contaminated([c.plain for c in found], name=name, ngram_words=config.ngram_words)
        result.append(Contamination(
            name=name, num_prompts=len(found), num_unreadable=ledger.rejects.total, rule=overlap.rule(),
            num_exact=int(overlap.is_exact.sum()), num_ngram=int((overlap.has_ngram & ~overlap.is_exact).sum()),
        ))  # fmt: skip
    return result


def _sides(config: PromptsConfig, selection: Selection, kept: list[Candidate]) -> np.ndarray:
    """[kept] True for held-out."""
    if config.heldout_sources:
        return np.fromiter((c.is_heldout_source for c in kept), bool, count=len(kept))
    labels = selection.families()[selection.alive]
    return heldout_mask([c.key for c in kept], families=labels, heldout=config.heldout)


def _records(coverage: Coverage) -> list[Prompt]:
    """In a fixed pseudo-random order, so that the first n are a fair sample whatever the order of the sources."""
    sides = zip(coverage.kept, coverage.is_heldout, strict=True)
    ordered = sorted(sides, key=lambda item: stable_hash(item[0].key, salt="order"))
    return [candidate.to_prompt("heldout" if held else "train") for candidate, held in ordered]


def _verdicts(config: PromptsConfig, coverage: Coverage) -> tuple[GateResult, ...]:
    results = [COUNT.judge(coverage.num_train, n=coverage.num_train, note="The count is exact")]
    if config.mix:
        missing = coverage.missing_slices()
        known = {c.slice for c in coverage.kept} - set(config.mix)
        named = ", ".join(f"{name}{nearest(name, known)}" for name in missing)
        results.append(COVERAGE.judge(1 - len(missing) / len(config.mix), n=len(config.mix),
                                      note=f"Missing: {named}" if missing else ""))  # fmt: skip
    if config.heldout > 0 or config.heldout_sources:
        results.append(HELDOUT.judge(coverage.num_heldout, n=len(coverage.kept)))
    return tuple(results)


def _summary(config: PromptsConfig, coverage: Coverage, tables: Mapping[str, Table]) -> StageSummary:
    ledger = coverage.ledger
    num_rows, num_rejected, num_not_taken = ledger.rows.total(), ledger.rejects.total, ledger.not_taken.total()
    headline = (
        f"{coverage.num_train:,} prompts to train on and {coverage.num_heldout:,} held out, from {num_rows:,} rows of "
        f"{len(coverage.source_names)} source{'s' if len(coverage.source_names) > 1 else ''}; {num_rejected:,} rejected"
        f"{f' ({ledger.reasons()})' if num_rejected else ''}{f', {num_not_taken:,} not taken' if num_not_taken else ''}."
    )
    notes = [] if config.mix else ["No mix was declared: figures by slice have no target."]
    undeclared = sorted({c.slice for c in coverage.kept} - set(config.mix)) if config.mix else []
    if undeclared:
        notes.append(f"Slices that the mix does not name: {', '.join(undeclared)}.")
    for found in coverage.contamination:
        notes.append(f"Compared with {found.name} ({found.num_prompts:,} prompts) by {found.rule}.")
    return StageSummary(
        stage="prompts", headline=headline, figures=coverage.figures(), verdicts=_verdicts(config, coverage),
        charts=(coverage.length_chart(),), tables=tuple(tables.values()), notes=tuple(notes),
        facts={"num_train": coverage.num_train, "num_heldout": coverage.num_heldout, "slices": coverage.train_shares()},
    )  # fmt: skip
