"""What the commands of `fairlead annotate` do: the one place where the rating application meets the terminal."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlead.cli import terminal
from fairlead.cli.addresses import DEFAULT_PORT, last_address, remembered
from fairlead.cli.running import as_data
from fairlead.core.errors import ConfigError, DataError, StoreError, explain
from fairlead.core.gates import some
from fairlead.core.protocols import ReplySampler
from fairlead.formats import read_mapping
from fairlead.store.annotation.database import Database, open_database
from fairlead.store.annotation.schema import Project
from fairlead.web import (
    anchors,
    backup,
    exporting,
    importing,
    matching,
    needs,
    people,
    projects,
    rated,
    reading,
    status,
)
from fairlead.web.demonstrations import transfer
from fairlead.web.steering_status import SteeringStatus, in_lines, steering_statuses


def serve_pages(
    db: str, *, host: str, port: int, url: str | None, allow_local_webhooks: bool = False, sampler: ReplySampler | None = None,
    gives_drafts: bool = False,
) -> None:  # fmt: skip
    """Start the server and stay until ctrl-C."""
    from fairlead.web.place import Place
    from fairlead.web.server import run_server

    with open_database(db) as database:
        place = Place.of(host=host, port=port, url=url)
        terminal.say(f"Rating application: {place.url}")
        if not people.has_lead(database):
            secret = people.make_invite(database, role="admin")
            terminal.say(f"You are the first: make your account at {place.url}/invite/{secret}")
        terminal.say("Next: fairlead annotate import SOURCE, fairlead annotate invite; ctrl-C stops the server, votes stay.")  # fmt: skip
        with remembered(db, place.url):
            run_server(
                database,
                place=place,
                secret_file=_secret_file(db),
                allow_local_webhooks=allow_local_webhooks,
                sampler=sampler,
                gives_drafts=gives_drafts,
            )


def make_chat_project(db: str, name: str) -> None:
    """The project of live conversations, if it is not there.

    Raises:
        DataError: a project of another kind has the name.
    """
    with open_database(db) as database:
        found = projects.find_project(database, name)
        if found is None:
            projects.create_project(database, name, kind="chat", votes_per_item=1, calibration_items=0)
        elif found.kind != "chat":
            raise DataError(explain("chat", name, f"is a project of kind {found.kind}", expected="a new name, or a project of conversations",
                                    remedy="Choose another with --chat"))  # fmt: skip


def _secret_file(db: str) -> Path:
    return Path("runs/annotate/secret") if "://" in db else Path(db).with_name("secret")


def import_source(
    db: str, source: Path, *, project: str, kind: str, votes: int, calibration: int, pairs_per_prompt: int, group_size: int, seed: int,
    is_strict: bool, is_gold: bool = False, source_format: str | None = None, mapping: Path | None = None, test: str | None = None,
) -> None:  # fmt: skip
    """Read, put in, account for the rest."""
    if test is not None and not is_gold:
        raise DataError(
            explain("test", test, "has no known answers", expected="--gold beside --test", remedy="Add --gold")
        )
    rejects = Path(f"{source.name.split('.')[0]}.rejects.jsonl")
    found = reading.read_source(source, pairs_per_prompt=pairs_per_prompt, group_size=group_size, seed=seed, rejects_file=rejects,
                                  source_format=source_format, mapping=read_mapping(mapping) if mapping else None)  # fmt: skip
    check_strict(source, found.left_out, is_strict=is_strict, faults=found.faults)
    with open_database(db) as database:
        target = projects.find_project(database, project) or projects.create_project(
            database, project, kind=kind, votes_per_item=votes, calibration_items=calibration
        )
        if is_gold:
            qualifies = needs.need_of(test) if test is not None else ""
            num_new, num_known = anchors.add_gold(database, target.id, found.items, by=None, qualifies=qualifies)
            what = (
                f"{some(num_new, 'pair')} of the test of {needs.in_words(qualifies)}"
                if qualifies
                else some(num_new, "hidden anchor")
            )
            terminal.say(f"{what} into {target.name}, with the answers of the file.")
            kept = None
        else:
            added = importing.add_items(database, target.id, found.items, ratings=found.ratings, source=source.name)
            num_known, kept = added.num_known, added.outside
            terminal.say(
                f"{some(added.num_items, 'item')} into {target.name} ({added.num_calibration:,} for calibration), "
                f"each for {some(target.votes_per_item, 'vote')}."
            )
        _say_unmatched(database, target)
    if num_known:
        terminal.say(f"  {some(num_known, 'is', 'are')} in it already")
    if found.repeats:
        terminal.say(
            f"  {some(found.repeats, 'stands', 'stand')} in the file more than once and {'was' if found.repeats == 1 else 'were'} taken once"
        )
    if found.num_uneven:
        terminal.say(
            f"  {some(found.num_uneven, 'holds', 'hold')} two turns of one speaker in a row; kept, for that is what the models saw"
        )
    if kept is not None and found.ratings:
        known = f"; {kept.num_known:,} were there already" if kept.num_known else ""
        terminal.say(
            f"  {some(kept.num_ratings, 'vote')} of {some(kept.num_raters, 'rater')} of another tool kept apart{known} (export --outside)"
        )
    _say_left_out(found.left_out, rejects, faults=found.faults)


def check_strict(source: Path, left_out: Mapping[str, int], *, is_strict: bool, faults: Sequence[str] = ()) -> None:
    if is_strict and left_out:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in left_out.items())
        reasons += "".join(f"; {fault}" for fault in faults)
        raise DataError(explain(source, None, f"cannot be used whole ({reasons})", expected="no fault with --strict",
                                remedy="Fix the rows, or leave --strict out"))  # fmt: skip


def _say_left_out(left_out: Mapping[str, int], rejects: Path, *, faults: Sequence[str] = ()) -> None:
    for reason, num in sorted(left_out.items()):
        terminal.say(f"  left out: {num:,} {reason}")
    for fault in faults:
        terminal.say(f"    {fault}")
    if rejects.exists():
        terminal.say(f"  rows that could not be read: {rejects}")
    terminal.say("Next: fairlead annotate serve (a server that runs already shows them)")


def import_wanted(db: str, source: Path, *, project: str, with_drafts: bool, is_strict: bool) -> None:
    """Conversations that want a reply."""
    rejects = Path(f"{source.name.split('.')[0]}.rejects.jsonl")
    found = transfer.read_wanted(source, with_drafts=with_drafts, rejects_file=rejects)
    check_strict(source, found.left_out, is_strict=is_strict, faults=found.faults)
    with open_database(db) as database:
        target = projects.find_project(database, project) or projects.create_project(
            database, project, kind="demonstration", votes_per_item=1, calibration_items=0
        )
        added = transfer.add_wanted(database, target.id, found.wanted)
        terminal.say(
            f"{some(added.num_new, 'conversation')} into {target.name}, {added.num_drafts:,} with a draft; each is written, then reviewed."
        )
        _say_unmatched(database, target, what="conversation")
    if added.num_known:
        terminal.say(f"  {some(added.num_known, 'is', 'are')} in it already")
    _say_left_out(found.left_out, rejects, faults=found.faults)


def _say_unmatched(database: Database, project: Project, *, what: str = "item") -> None:
    """What no rater can get, for want of a language or skill."""
    with database.read() as rows:
        alone = [row for row in matching.coverage(rows, project) if row.needs and not row.num_raters]
    for row in alone:
        terminal.say(
            f"  {some(row.num_items, f'{what} asks', f'{what}s ask')} for {row.words}, which no rater has yet: write it down on the page People"
        )


def print_invites(
    db: str, *, role: str, count: int, url: str | None, languages: Sequence[str] = (), skills: Sequence[str] = ()
) -> None:
    """One link a line; which address was assumed goes beside them."""
    from fairlead.web.place import Place

    abilities, last = needs.abilities_from(languages=languages, skills=skills), last_address(db)
    place = Place.of(host="127.0.0.1", port=DEFAULT_PORT, url=url or last)
    with existing(db) as database:
        for _ in range(count):
            terminal.say(f"{place.url}/invite/{people.make_invite(database, role=role, abilities=abilities)}")
    if url is None:
        why = (
            "where the server was started last"
            if last
            else "where serve listens when told nothing else; none was started here yet"
        )
        terminal.note(f"The address is {place.url}, {why}. For another: --url https://NAME")


def show_status(db: str, *, as_json: bool) -> None:
    """Counts of each project."""
    with existing(db) as database:
        found, members = status.all_statuses(database), status.count_people(database)
        steered = steering_statuses(database)
    if as_json:
        terminal.say(as_data({"projects": [_with_steering(each, steered) for each in found], "people": members}))
        return
    terminal.say("People: " + (", ".join(some(num, role) for role, num in sorted(members.items())) or "nobody yet"))
    for each in found:
        num_production = each.num_items - each.num_calibration
        have = "has" if 1 in (each.num_finished, num_production) else "have"
        if each.kind == "demonstration":
            terminal.say(f"{each.name} ({each.state}): {each.num_finished:,} of "
                         f"{some(each.num_items, 'conversation')} {have} an accepted reply")  # fmt: skip
            continue
        terminal.say(
            f"{each.name} ({each.state}): {each.num_finished:,} of {some(num_production, 'pair')} {have} "
            f"{some(each.votes_per_item, 'vote')}; {some(each.num_votes, 'vote')} and {some(each.num_skips, 'skip')} by "
            f"{some(each.num_raters, 'rater')}, calibration items {each.num_calibration:,}"
        )
        for line in in_lines(steered[each.name]) if each.name in steered else ():
            terminal.say(f"  {line}")
    is_begun = any(each.num_votes or (each.kind == "demonstration" and each.num_finished) for each in found)
    terminal.say(
        f"Next: fairlead annotate {'export FOLDER --project NAME' if is_begun else 'invite, for links that let raters in'}"
    )


def _with_steering(found: status.Status, steered: Mapping[str, SteeringStatus]) -> dict[str, Any]:
    more = {"steering": dataclasses.asdict(steered[found.name])} if found.name in steered else {}
    return {**dataclasses.asdict(found), **more}


def export_rated(db: str, out: Path, *, project: str, to: str, method: str, is_blind: bool, with_outside: bool) -> None:
    """A file of another program."""
    with existing(db) as database:
        done = rated.export_as(
            database,
            project_named(database, project),
            out,
            to=to,
            method=method,
            is_blind=is_blind,
            with_outside=with_outside,
        )
    terminal.say(f"{done.what} -> {', '.join(map(str, done.files))}")
    for note in done.notes:
        terminal.say(f"  {note}")


def export_votes(db: str, out: Path, *, project: str, is_blind: bool = False, with_outside: bool = False) -> None:
    """Files for the pipeline."""
    if is_blind or with_outside:
        raise ConfigError(explain("format", "native", "names models and holds the own votes alone",
                                  expected="another format with --blind or --outside",
                                  remedy="Add --format fairlead_items"))  # fmt: skip
    with existing(db) as database:
        target = project_named(database, project)
        if target.kind == "demonstration":
            _export_demonstrations(database, target, out)
            return
        done = exporting.export_project(database, target, out)
    terminal.say(
        f"{some(done.num_votes, 'vote')} and {some(done.num_skips, 'skip')} by {some(done.num_raters, 'rater')} on "
        f"{some(done.num_comparisons, 'pair')} -> {out}"
    )
    terminal.say(
        f"Next: name it in a recipe (feedback.path: {out / 'comparisons.jsonl'}), or fairlead votes agreement {out / 'votes.jsonl'}"
    )
    if done.num_demonstrations:
        path = out / "demonstrations.jsonl"
        edits = some(done.num_demonstrations, "edited reply is a demonstration", "edited replies are demonstrations")
        terminal.say(f"      {edits}: sft.data: [{{path: {path}}}]")
    if done.num_overruled:
        terminal.say(
            f"      {some(done.num_overruled, 'edit is', 'edits are')} none: an adjudicator put another reply above the edited one"
        )


def _export_demonstrations(database: Database, project: Project, out: Path) -> None:
    done = transfer.export_demonstrations(database, project, out)
    terminal.say(
        f"{some(done.num_demonstrations, 'accepted reply', 'accepted replies')} by "
        f"{some(done.num_authors, 'person', 'people')} ({done.num_drafted:,} from a draft by a model, "
        f"{done.num_edited:,} changed by their reviewer) -> {out}"
    )
    terminal.say(f"Next: name it in a recipe (sft.data: [{{path: {out / 'demonstrations.jsonl'}}}])")


def back_up_database(db: str, out: Path) -> None:
    """Copy."""
    with existing(db) as database:
        size = backup.back_up(database, out)
    terminal.say(f"Copied: {out} ({size / 1e6:.1f} MB)")


def existing(db: str) -> Database:
    """Open a database that is there."""
    if "://" not in db and not Path(db).exists():
        raise StoreError(
            explain(
                db,
                None,
                "is not there",
                expected="a database of votes",
                remedy="Start with fairlead annotate serve or import, or name it with --db",
            )
        )
    return open_database(db)


def project_named(database: Database, name: str) -> Project:
    found = projects.find_project(database, name)
    if found is None:
        names = ", ".join(each.name for each in status.all_statuses(database)) or "none yet"
        raise DataError(explain("project", name, "is not there", expected=f"one of: {names}", remedy="Choose one with --project"))  # fmt: skip
    return found
