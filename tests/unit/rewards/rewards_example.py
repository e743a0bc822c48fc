"""A small problem for the rewards stage: replies with more `yes` are better, replies with more `no` are longer-winded."""

import json
import shutil
from pathlib import Path

import tiny_models
from fairlead.core.io import write_jsonl
from fairlead.core.records import Completion, Message, Preference, Prompt
from fairlead.core.sections import TextSection
from fairlead.core.services import Services

NUM_PROMPTS, NUM_HELDOUT = 18, 6
REPLIES = (("yes yes yes", 3, 0), ("yes yes no", 2, 1), ("yes no no", 1, 2), ("no no no", 0, 3))
"""(text, quality, wordiness)."""


def prompt(number):
    letters = "abcdefghijklmnopqrstuvwxyz"
    return Prompt(messages=(Message(role="user", content=f"said {letters[number]}"),))


def preferences():
    """All pairs of the four replies; every third prompt lacks the rating of wordiness."""
    rows = []
    for number in range(NUM_PROMPTS):
        split = "heldout" if number < NUM_HELDOUT else "train"
        for i, (better, good, few) in enumerate(REPLIES):
            for worse, bad, many in REPLIES[i + 1 :]:
                meta = {"chosen_quality": good, "rejected_quality": bad}
                if number % 3:
                    meta |= {"chosen_wordiness": few, "rejected_wordiness": many}
                rows.append(
                    Preference(
                        prompt=prompt(number).messages,
                        chosen=better,
                        rejected=worse,
                        split=split,
                        num_votes=1 + number % 3,
                        meta=meta,
                    )
                )
    return rows  # fmt: skip


def make_inputs(folder, rows=None):
    """Folders of the stages before, as the pipeline hands them over."""
    shutil.copytree(tiny_models.folder("llama"), folder / "policy")
    tokenizer = tiny_models.make_tokenizer()
    write_jsonl(_in(folder / "preferences", "preferences.jsonl"), rows if rows is not None else preferences())
    (folder / "preferences" / "summary.json").write_text(json.dumps({"facts": {}}))
    prompts = [prompt(number) for number in range(NUM_PROMPTS)]
    write_jsonl(_in(folder / "prompts", "prompts.jsonl"), prompts)
    write_jsonl(_in(folder / "completions", "completions.jsonl"), [
        Completion(prompt_id=p.id, text=text, model="policy", token_ids=tuple(tokenizer.encode(text, add_special_tokens=False)))
        for p in prompts for text, *_ in REPLIES
    ])  # fmt: skip
    return {name: folder / name for name in ("policy", "preferences", "prompts", "completions")}


def _in(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    return folder / name


def services(work, **options):
    """Services of a test."""
    work.mkdir(parents=True, exist_ok=True)
    return Services(work=work, seed=3, extras={"text": TextSection(max_length=64)}, **options)
