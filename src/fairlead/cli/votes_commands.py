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
    method: Annotated[
        str, typer.Option(help="majority, dawid_skene, one_coin, one_coin_side_bias, weighted; bradley_terry with --items.")
    ] = "dawid_skene",
    items: Annotated[Path | None, typer.Option(help="Texts (item, prompt, a, b): then labels a and b become preferences.")] = None,
    gold: Annotated[Path | None, typer.Option(help="Anchors (item, label) whose truth is known; held fixed.")] = None,
) -> None:  # fmt: skip
    """One label an item with its probability. With the texts, preferences to train on."""
    from fairlead.cli.votes import aggregate_file

    aggregate_file(file, out, item=item, rater=rater, label=label, method=method, items=items, gold=gold)


@votes_app.command("convert", epilog="Example: fairlead votes convert export.json --to trl --out pairs.jsonl")
def votes_convert(
    file: Annotated[Path, typer.Argument(help="Export of an annotation tool, or a vendor's table with --mapping.", metavar="FILE")],
    to: Annotated[str, typer.Option(help="labels, fairlead_items, label_studio, label_studio_min, argilla, oasst, votes; trl, hh, "
                                    "ultrafeedback_binarized, helpsteer3, fairlead; fine_tuning, fine_tuning_sft.")],
    out: Annotated[Path, typer.Option(help="File to write; .parquet for preferences, .csv for votes, otherwise .jsonl (or .json).")],
    source: Annotated[str | None, typer.Option("--from", help="Format of FILE; recognised when left out.", metavar="FORMAT")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Which column is what in a vendor's table (YAML).")] = None,
    method: Annotated[str, typer.Option(help="How votes become preferences: auto, majority, dawid_skene, one_coin, one_coin_side_bias, "
                                        "weighted, bradley_terry.")] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing when any row is faulty.")] = False,
    blind: Annotated[bool, typer.Option("--blind", help="Leave the names of models out.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """From one annotation tool to another, or to preferences. Ratings, votes, posterior and origin go along; bad rows are listed."""
    from fairlead.cli.votes import convert_file

    convert_file(
        file,
        out,
        to=to,
        source=source,
        mapping=mapping,
        method=method,
        is_strict=strict,
        is_blind=blind,
        as_json=as_json,
    )


@votes_app.command("drift", epilog="Example: fairlead votes drift anchors.csv")
def votes_drift(
    file: Annotated[Path, typer.Argument(help="CSV or JSONL of rater, correct (true or false): answers on anchors, by time.", metavar="FILE")],
    p0: Annotated[float, typer.Option(help="Share of right answers when calibrated.")] = 0.80,
    p1: Annotated[float, typer.Option(help="Share to detect.")] = 0.65,
    h: Annotated[float, typer.Option(help="Alarm level, nats.")] = 4.0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Watch each rater's answers on hidden anchors. Alarms with their false-alarm rate, and since when to rate again."""
    from fairlead.cli.votes import show_drift

    show_drift(file, p0=p0, p1=p1, h=h, as_json=as_json)


@votes_app.command("rolling", epilog="Example: fairlead votes rolling votes.csv --window 100")
def votes_rolling(
    file: VotesFile, item: Column = "item", rater: Column = "rater", label: Column = "label",
    window: Annotated[int, typer.Option(help="Items.", min=2)] = 100, as_json: Json = False,
) -> None:  # fmt: skip
    """Follow kappa along the work, each figure with its interval. Says when to pause and when more votes may be bought."""
    from fairlead.cli.votes import show_rolling

    show_rolling(file, item=item, rater=rater, label=label, window=window, as_json=as_json)


@votes_app.command("choose", epilog="Example: fairlead votes choose pool.jsonl --pairs 100 --out batch.jsonl")
def votes_choose(
    file: Annotated[Path, typer.Argument(help="Table of item with any of p_first, votes_first and votes_second, slice, rated.", metavar="FILE")],
    pairs: Annotated[int, typer.Option(help="Pairs to choose.", min=1)],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("batch.jsonl"),
    random_share: Annotated[float, typer.Option(help="Part chosen at random, at least 0.2.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:  # fmt: skip
    """Choose the pairs to rate next. Uncertain, disputed, rarely covered, and a fifth at random; writes with what probability each was chosen."""
    from fairlead.cli.votes import choose_batch

    choose_batch(file, out, num_pairs=pairs, random_share=random_share, seed=seed)
