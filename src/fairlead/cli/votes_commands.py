"""The commands of `fairlead votes`; what they print is in `votes.py`, imported when one runs."""

from pathlib import Path
from typing import Annotated

import typer

votes_app = typer.Typer(
    help="From a table of votes to agreement and labels.", no_args_is_help=True, epilog="Example: fairlead votes agreement votes.csv"
)  # fmt: skip

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
VotesFile = Annotated[Path, typer.Argument(help="CSV or JSONL of item, rater, label.", metavar="FILE")]
Column = Annotated[str, typer.Option(help="Column name.")]


@votes_app.command("import", epilog="Example: fairlead votes import votes.csv --out votes.jsonl")
def votes_import(
    file: VotesFile,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("votes.jsonl"),
    item: Column = "item",
    rater: Column = "rater",
    label: Column = "label",
) -> None:
    """Check a table of votes and write it in Fairlead's own form."""
    from fairlead.cli.votes import import_file

    import_file(file, out, item=item, rater=rater, label=label)


@votes_app.command("agreement", epilog="Example: fairlead votes agreement votes.csv")
def votes_agreement(
    file: VotesFile, item: Column = "item", rater: Column = "rater", label: Column = "label",
    level: Annotated[str, typer.Option(help="nominal, ordinal or interval.")] = "nominal", as_json: Json = False,
) -> None:  # fmt: skip
    """Agreement with intervals, beside published reference figures."""
    from fairlead.cli.votes import show_agreement

    show_agreement(file, item=item, rater=rater, label=label, level=level, as_json=as_json)


@votes_app.command("gate", epilog="Example: fairlead votes gate round1.csv")
def votes_gate(
    file: VotesFile, item: Column = "item", rater: Column = "rater", label: Column = "label", as_json: Json = False
) -> None:
    """Read a calibration round: which raters may begin. And whether the guideline is vague or single raters deviate."""
    from fairlead.cli.votes import show_gate

    show_gate(file, item=item, rater=rater, label=label, as_json=as_json)


@votes_app.command(
    "aggregate", epilog="Example: fairlead votes aggregate votes.csv --items items.jsonl --out preferences.jsonl"
)
def votes_aggregate(
    file: VotesFile,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("aggregated.jsonl"),
    item: Column = "item", rater: Column = "rater", label: Column = "label",
    method: Annotated[str, typer.Option(help="majority, dawid_skene, one_coin, one_coin_side_bias or weighted.")] = "dawid_skene",
    items: Annotated[Path | None, typer.Option(help="Texts (item, prompt, a, b): then labels a and b become preferences.")] = None,
) -> None:  # fmt: skip
    """One label an item with its probability. With the texts, preferences to train on."""
    from fairlead.cli.votes import aggregate_file

    aggregate_file(file, out, item=item, rater=rater, label=label, method=method, items=items)
