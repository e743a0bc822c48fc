"""`fairlead votes`: a table of item, rater, label to agreement figures and aggregated labels."""

from pathlib import Path

from rich.table import Table as RichTable

from fairlead.cli import terminal
from fairlead.cli.running import as_data
from fairlead.core.gates import figure, some
from fairlead.core.summary import StageSummary
from fairlead.preferences import item_export, shared_rounds, votes, watching


def import_file(file: Path, out: Path, *, item: str, rater: str, label: str) -> None:
    """Check and convert."""
    table = votes.import_votes(file, out, item=item, rater=rater, label=label)
    terminal.say(
        f"{some(len(table.items), 'vote')} by {some(len(table.rater_names), 'rater')} on {some(len(table.item_names), 'item')} -> {out}"
    )
    terminal.say(f"Next: fairlead votes agreement {out}")


def show_gate(file: Path, *, item: str, rater: str, label: str, as_json: bool) -> None:
    """Decisions of a calibration round."""
    _show(shared_rounds.gate_of(file, item=item, rater=rater, label=label), as_json=as_json)


def _show(summary: StageSummary, *, as_json: bool) -> None:
    if as_json:
        terminal.say(as_data(summary.to_dict()))
        return
    terminal.say(summary.headline)
    for row in summary.figures:
        terminal.say(f"  {row.line()}{'. ' + row.note if row.note else ''}")
    for verdict in summary.verdicts:
        terminal.say(f"  {verdict.line()}")
    for line in summary.notes:
        terminal.say(f"  {line}")
    for table in summary.tables:
        _print_table(table.title, table.columns, table.rows)


def show_agreement(file: Path, *, item: str, rater: str, label: str, level: str, as_json: bool) -> None:
    """Figures, verdicts and tables of a file of votes."""
    _show(votes.agreement_of(file, item=item, rater=rater, label=label, level=level), as_json=as_json)
    if as_json:
        return
    terminal.say(f"Next: fairlead votes aggregate {file}, with --items TEXTS for preferences to train on")


def aggregate_file(
    file: Path, out: Path, *, item: str, rater: str, label: str, method: str, items: Path | None, gold: Path | None
) -> None:
    """Aggregate and say what came out."""
    summary = votes.aggregate_votes(
        file, out, item=item, rater=rater, label=label, method=method, items=items, gold=gold
    )
    terminal.say(summary.headline)
    for note in summary.notes:
        terminal.say(f"  {note}")
    terminal.say(f"Written: {out}")
    if items is not None:
        terminal.say(f"Next: name it in a recipe (preferences.path: {out}), then fairlead prefer RECIPE")


def show_drift(file: Path, *, p0: float, p1: float, h: float, as_json: bool) -> None:
    """Alarms on anchors."""
    _show(watching.drift_of(file, p0=p0, p1=p1, h=h), as_json=as_json)


def show_rolling(file: Path, *, item: str, rater: str, label: str, window: int, as_json: bool) -> None:
    """Kappa along the work."""
    _show(watching.rolling_of(file, item=item, rater=rater, label=label, window=window), as_json=as_json)


def choose_batch(file: Path, out: Path, *, num_pairs: int, random_share: float, seed: int) -> None:
    """The next batch."""
    _show(watching.choose_batch(file, out, num_pairs=num_pairs, random_share=random_share, seed=seed), as_json=False)
    terminal.say(f"Written: {out}; keep its column p_inclusion with the votes, for figures divide by it")


def convert_file(
    file: Path, out: Path, *, to: str, source: str | None, mapping: Path | None, method: str, is_strict: bool, is_blind: bool, as_json: bool
) -> None:  # fmt: skip
    """Convert and say what came out."""
    summary = item_export.convert(
        file, out, to=to, source_format=source, mapping=mapping, method=method, is_strict=is_strict, is_blind=is_blind
    )
    _show(summary, as_json=as_json)
    if not as_json:
        terminal.say(f"Written: {out}")


def _print_table(title: str, columns: tuple[str, ...], rows: tuple[tuple[str | float | int | None, ...], ...]) -> None:
    filled = [i for i in range(len(columns)) if any(row[i] not in (None, "") for row in rows)]
    table = RichTable(title=title, title_justify="left", box=None)
    for i in filled:
        table.add_column(columns[i])
    for row in rows[:25]:
        cells = (row[i] for i in filled)
        table.add_row(*(figure(c) if isinstance(c, float) else "" if c is None else str(c) for c in cells))
    terminal.show_table(table)
    if len(rows) > 25:
        terminal.say(f"  and {some(len(rows) - 25, 'more row')}; --json prints all")
