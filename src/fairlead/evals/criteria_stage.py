"""Stage: freeze the criteria of success and the evaluation prompts before anything is trained.

Writes criteria.json (with its hash) and prompts.jsonl (the evaluation prompts themselves). Every trained policy records the
hash that was in force; the evaluation refuses another one.
"""

from collections.abc import Mapping
from pathlib import Path

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects, read_records, write_json, write_jsonl
from fairlead.core.records import Prompt, content_hash
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary, Table
from fairlead.evals.config import EvalsConfig
from fairlead.evals.criteria import freeze
from fairlead.formats import read_prompts
from fairlead.models.load import load_tokenizer
from fairlead.text.chat import ChatText
from fairlead.text.prompts import encode_prompts


def run(config: EvalsConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Freeze."""
    rejects = Rejects(out / "rejects.jsonl")
    with rejects:
        prompts = _read(config, inputs, rejects, services)[: config.max_prompts]
    if len(prompts) < 2:
        raise DataError(explain("evals.prompts", len(prompts), "prompts are too few to compare on", expected=">= 2 held-out prompts",
                                remedy="Name a file of evaluation prompts or raise prompts.heldout"))  # fmt: skip
    _check_fit(config, prompts, services)
    frozen = freeze(config.criteria, eval_prompts_sha256=content_hash([p.id for p in prompts], num_chars=64))
    write_jsonl(out / "prompts.jsonl", prompts)
    write_json(out / "criteria.json", frozen)
    rows = tuple(
        (b.id, "guard" if b.guard else "aim", b.direction, b.metric, b.min_effect) for b in config.criteria.behaviours
    )
    return StageSummary(
        stage="criteria",
        headline=f"{len(rows)} behaviours and {len(prompts)} evaluation prompts frozen before training (hash {frozen['sha256'][:12]}).",
        tables=(Table(title="Criteria of success", columns=("behaviour", "kind", "direction", "metric", "smallest effect that counts"), rows=rows),),
        notes=(f"{rejects.total} rows of {config.prompts} could not be read; see rejects.jsonl.",) if rejects.total else (),
        facts={"criteria_sha256": frozen["sha256"]},
    )  # fmt: skip


def _check_fit(config: EvalsConfig, prompts: list[Prompt], services: Services) -> None:
    """Find a prompt that no reply would fit behind now, not after hours of training."""
    text: TextSection = services.extras["text"]
    folder = services.extras["base_model"]
    chat = ChatText(load_tokenizer(folder), template=text.template, name=folder)
    encode_prompts(chat, prompts, max_length=text.max_length, max_new_tokens=config.max_new_tokens,
                   max_added_tokens=config.max_added_tokens)  # fmt: skip


def _read(config: EvalsConfig, inputs: Mapping[str, Path], rejects: Rejects, services: Services) -> list[Prompt]:
    if config.prompts is not None:
        path = services.extras["find_file"](config.prompts)
        return list(read_prompts(path, format=config.prompts_format, rejects=rejects))
    if "prompts" not in inputs:
        raise DataError(explain("evals.prompts", None, "is missing and the recipe has no prompts", expected="a file of evaluation prompts",
                                remedy="Set evals.prompts"))  # fmt: skip
    return [p for p in read_records(inputs["prompts"] / "prompts.jsonl", Prompt) if p.split == "heldout"]
