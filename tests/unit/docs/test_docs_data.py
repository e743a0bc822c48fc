"""docs/data.md: its snippets, run on small files of the published shape, give the layout that it promises and the recipes read."""

import gzip
import json
import re
from pathlib import Path

import pytest

from fairlead.core.io import Rejects, read_rows
from fairlead.evals.capability import read_texts
from fairlead.formats import read_preferences, read_prompts
from fairlead.pipeline.recipe import load

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
LAYOUT = dict(re.findall(r"^  (\S+\.jsonl\.gz) +(\S.*)$", PAGE, re.MULTILINE))


def run_snippet(which: str) -> None:
    """Run the one code block that names `which`, in the current folder."""
    blocks = [b for b in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if which in b]
    assert len(blocks) == 1
    exec(compile(blocks[0], "docs/data.md", "exec"), {})


def columns(path: str) -> list[str]:
    return [name.strip() for name in LAYOUT[path].split(",")]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_imdb_reviews_become_the_layout_that_the_recipe_reads(tmp_path: Path) -> None:
    for name, text in (
        ("neg/7_2.txt", "Bad.<br /><br />Très bad."),
        ("pos/0_9.txt", "A good film."),
        ("unsup/1_0.txt", "No stars."),
    ):
        path = tmp_path / "aclImdb" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    run_snippet("aclImdb/train")
    rows = [row.values for row in read_rows("data/text/imdb_train.jsonl.gz")]
    assert rows == [
        {"id": "train-neg-7", "label": "neg", "stars": 2, "text": "Bad.\n\nTrès bad."},
        {"id": "train-pos-0", "label": "pos", "stars": 9, "text": "A good film."},
    ]
    assert list(rows[0]) == columns("text/imdb_train.jsonl.gz")
    gold = load(ROOT / "recipes" / "imdb_sentiment.yaml").gold
    assert gold is not None and gold.type == "classifier" and {gold.text_field, gold.label_field} <= set(rows[0])


def test_blimp_becomes_the_layout_that_the_evaluation_reads(tmp_path: Path) -> None:
    (tmp_path / "blimp" / "data").mkdir(parents=True)
    row = {"sentence_good": "Who should Derek hug?", "sentence_bad": "Who should hug Derek who?", "field": "syntax",
           "linguistics_term": "island_effects", "UID": "adjunct_island", "simple_LM_method": True, "one_prefix_method": False,
           "two_prefix_method": False, "lexically_identical": True, "pairID": "0"}  # fmt: skip
    (tmp_path / "blimp" / "data" / "adjunct_island.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps(row | {"pairID": "1"})
    )
    run_snippet("blimp/data")
    path = Path("data/capability/blimp_public_paradigms.jsonl.gz")
    rows = [found.values for found in read_rows(path)]
    assert [list(found) for found in rows] == 2 * [columns("capability/blimp_public_paradigms.jsonl.gz")]
    assert [found["pair"] for found in rows] == [0, 1]
    assert read_texts(path, "good", "bad", limit=1) == [(row["sentence_good"], row["sentence_bad"])]


def test_hh_is_read_as_it_is_published(tmp_path: Path) -> None:
    """The recipe takes prompts and preferences from one file, which upstream holds two transcripts a row."""
    start = "\n\nHuman: Is it far?\n\nAssistant: Where to?\n\nHuman: The sea."
    rows = [
        {"chosen": f"{start} {i}\n\nAssistant: Two hours.", "rejected": f"{start} {i}\n\nAssistant: Go away."}
        for i in range(3)
    ]
    path = tmp_path / "hh_harmless.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        preferences = list(read_preferences(path, rejects=rejects))
        prompts = list(read_prompts(path, rejects=rejects))
    assert [(p.chosen, p.rejected) for p in preferences] == 3 * [("Two hours.", "Go away.")]
    assert [m.role for m in preferences[0].prompt] == ["user", "assistant", "user"]
    assert [p.messages for p in prompts] == [p.prompt for p in preferences]
    recipe = load(ROOT / "recipes" / "harmless_hh.yaml")
    assert recipe.prompts is not None and [source.format for source in recipe.prompts.sources] == ["auto"]


def test_every_file_that_a_recipe_or_the_tools_take_from_the_collection_is_in_the_layout() -> None:
    text = "\n".join(
        p.read_text(encoding="utf-8") for p in (*(ROOT / "recipes").glob("*.yaml"), ROOT / "tools" / "bundled_model.py")
    )
    named = set(re.findall(r"\b(?:text|preference|sft|capability)/\w+\.jsonl\.gz", text))
    assert named and named <= set(LAYOUT)
