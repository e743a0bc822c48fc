"""Composed rewards against the prompts of the recipe before its first stage: slices without prompts, prompts that nothing scores.

The stage of a policy checks the same on the prompts that it trains on; here they are the rows of the sources, read and not yet selected, for a
slip in a name is found in either.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fairlead.core.errors import FairleadError
from fairlead.core.io import Rejects, read_records
from fairlead.core.records import Prompt
from fairlead.core.reward_section import ComposeSection
from fairlead.formats import read_prompts
from fairlead.prompts.ledger import Ledger
from fairlead.prompts.selection import drop_long
from fairlead.prompts.sources import Reading, read_source, source_names
from fairlead.prompts.stage import PromptsConfig
from fairlead.rewards.router import Router


def has_conditions(section: ComposeSection) -> bool:
    """Does it tell prompts apart, so that one may be scored by nothing?"""
    return any(part.slices or part.except_slices or part.where for part in section.components.values())


def slice_faults(sections: Mapping[str, ComposeSection], prompts: Sequence[Prompt]) -> Iterator[FairleadError]:
    """The first fault of each section.

    Args:
        sections: by their paths in the recipe.
        prompts: to train on.
    """
    for where, section in sections.items():
        try:
            Router(section.components).check(prompts, where=where)
        except FairleadError as error:
            yield error


def foreseen_prompts(config: PromptsConfig, *, folders: tuple[Path, ...]) -> list[Prompt]:
    """What the sources hold that is not held out by its source and not too long; empty where they are on a hub or cannot be read, which the
    stage of the prompts says itself."""
    if any(source.hub for source in config.sources):
        return []
    ledger = Ledger(Rejects(Path()))  # never written
    reading = Reading(ledger=ledger, folders=folders, read_prompts=read_prompts)
    found: list[Prompt] = []
    with contextlib.suppress(FairleadError):
        for index, (source, name) in enumerate(zip(config.sources, source_names(config.sources), strict=True)):
            candidates = read_source(source, index=index, name=name, reading=reading)
            if config.max_words is not None:
                candidates = drop_long(candidates, ledger, max_words=config.max_words)
            found += [candidate.to_prompt("train") for candidate in candidates]
        return found
    return []


def made_prompts(folder: Path) -> list[Prompt]:
    """The training prompts of an artifact."""
    return [prompt for prompt in read_records(folder / "prompts.jsonl", Prompt) if prompt.split == "train"]
