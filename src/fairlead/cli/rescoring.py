"""`fairlead reward score`: logged samples of a policy, scored again by the models that were active then."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table as RichTable

from fairlead.cli import terminal
from fairlead.cli.running import as_data, loading
from fairlead.core.config import parse_config
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import figure, some
from fairlead.core.io import read_json

if TYPE_CHECKING:
    from fairlead.pipeline.rescoring import ScoredAgain


def show_scores(home: Path, run: str, *, policy: str, step: int | None, as_json: bool) -> None:
    """A row a sample and component; ends with an error when a score is not what it was.

    Raises:
        DataError: scores differ.
    """
    with loading():
        from fairlead.cli.reporting import run_folder
        from fairlead.pipeline.recipe import Recipe
        from fairlead.pipeline.rescoring import score_again
        from fairlead.pipeline.run import Interface, Pipeline
    folder = run_folder(home, run)
    recipe = parse_config(Recipe, read_json(folder / "recipe.json"), where=str(folder / "recipe.json"))
    pipeline = Pipeline(recipe, home, Path(os.curdir).resolve(), Interface(terminal.progress, terminal.say))
    pipeline.load_records()
    found = list(score_again(pipeline, policy=policy, step=step))
    if as_json:
        terminal.say(as_data([_plain(one) for one in found]))
    else:
        table = RichTable(box=None)
        for name in ("step", "completion", "component", "model", "then", "now"):
            table.add_column(name)
        for one in found[:25]:
            text = " ".join(one.sample.completion.text.split())[:40]
            table.add_row(str(one.sample.step), text, one.component, one.active, figure(one.then), figure(one.now))
        terminal.show_table(table)
        if len(found) > 25:
            terminal.say(f"  and {some(len(found) - 25, 'more row')}; --json prints all")
    differing = [one for one in found if not one.is_same]
    if differing:
        one = differing[0]
        raise DataError(explain(f"step {one.sample.step}: {one.component}", one.now, f"is not what it was ({one.then:.6g}; {len(differing)} of "
                                f"{len(found)} scores differ)", expected="the same score from the same model",
                                remedy="See whether files of the rules, or the code, have changed since"))  # fmt: skip
    if not as_json:
        terminal.say(f"{len(found):,} scores of {policy} are what they were.")


def _plain(one: "ScoredAgain") -> dict[str, object]:
    numbers = {name: None if math.isnan(value) else value for name, value in (("then", one.then), ("now", one.now))}
    return {"step": one.sample.step, "completion": one.sample.completion.text, "component": one.component, "model": one.active,
            **numbers, "is_same": one.is_same}  # fmt: skip
