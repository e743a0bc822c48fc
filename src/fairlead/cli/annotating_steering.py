"""What `fairlead annotate steer` and `scores` do."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import yaml

from fairlead.cli import terminal
from fairlead.cli.annotating import check_strict, existing, project_named
from fairlead.core.errors import ConfigError, explain
from fairlead.core.gates import some
from fairlead.web import scoring, steering


def steer_project(db: str, project: str, *, sets: Sequence[str], votes: int | None, reason: str) -> None:
    """Change what is named, then show all."""
    changes = steering.known_settings(dict(_setting(each) for each in sets))
    with existing(db) as database:
        target = project_named(database, project)
        if changes or votes is not None:
            steering.change_settings(
                database, target.id, by=None, votes_per_item=votes or target.votes_per_item, reason=reason, **changes
            )
            target = project_named(database, project)
    terminal.say(f"votes an item: {target.votes_per_item}")
    for name, value in dataclasses.asdict(steering.steering_of(target)).items():
        terminal.say(f"{name}: {value}")


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(explain("--set", text, "has no value", expected="NAME=VALUE", remedy="Write both"))
    return name.strip(), yaml.safe_load(value)


def import_scores(db: str, source: Path, *, project: str, is_strict: bool) -> None:
    """Read, put in, account for the rest."""
    rejects = Path(f"{source.name.split('.')[0]}.rejects.jsonl")
    given, faults, _ = scoring.read_scores(source, rejects_file=rejects)
    check_strict(source, faults, is_strict=is_strict)
    with existing(db) as database:
        target = project_named(database, project)
        put = scoring.put_scores(database, target.id, given, by=None)
    terminal.say(
        f"{some(put.num_scores, 'completion')} of {target.name} {'has' if put.num_scores == 1 else 'have'} a score."
    )
    if put.num_unknown:
        terminal.say(
            f"  left out: {some(put.num_unknown, 'row that names', 'rows that name')} no completion of the project"
        )
    for fault, num in sorted(faults.items()):
        terminal.say(f"  left out: {some(num, 'row')}: {fault}")
    if rejects.exists():
        terminal.say(f"  rows that could not be read: {rejects}")
    terminal.say("Next: fairlead annotate steer --set random_share=0.3")
