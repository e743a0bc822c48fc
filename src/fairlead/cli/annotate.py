"""`fairlead annotate`: the rating application from outside. Each command opens the database, calls one function, and says what came of it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli import terminal
from fairlead.cli.addresses import DEFAULT_PORT
from fairlead.core.errors import ConfigError, explain

annotate_app = typer.Typer(
    help="Collect people's votes in the browser.", no_args_is_help=True, epilog="Example: fairlead annotate serve"
)  # fmt: skip
Db = Annotated[
    str | None,
    typer.Option(help="SQLite file, or URL of PostgreSQL; annotate/votes.db in FAIRLEAD_HOME when left out."),
]
ProjectName = Annotated[str, typer.Option("--project", help="Name of the project.")]


def place_of(db: str | None) -> str:
    """Where the database is."""
    return db or str(Path(os.environ.get("FAIRLEAD_HOME", "runs")).expanduser() / "annotate" / "votes.db")


@annotate_app.command("serve", epilog="Example: fairlead annotate serve --port 8643")
def serve(
    db: Db = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = DEFAULT_PORT,
    url: Annotated[str | None, typer.Option(help="Address that raters type, where it is another (https://rate.example.org behind TLS).")] = None,
    policy: Annotated[Path | None, typer.Option(help="Folder of a policy that raters talk to, two replies a turn.", metavar="FOLDER")] = None,
    chat: Annotated[str, typer.Option(help="With --policy: project of the conversations, made when it is not there.")] = "chat",
    template: Annotated[str | None, typer.Option(help="With --policy: chat template (plain, chatml or a file) where its tokenizer has none.")] = None,
    temperature: Annotated[float, typer.Option(help="With --policy: of its replies.", min=0.01)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="With --policy: longest reply, tokens.", min=1)] = 256,
    drafts: Annotated[bool, typer.Option("--drafts", help="With --policy: let people who write demonstrations ask it for a draft.")] = False,
    local_webhooks: Annotated[bool, typer.Option("--local-webhooks", help="Let webhooks go to this machine itself, without TLS.")] = False,
) -> None:  # fmt: skip
    """Start the application. The first start makes the database and prints the lead's invitation."""
    from fairlead.cli.annotating import serve_pages

    sampler = None
    if drafts and policy is None:
        raise ConfigError(explain("--drafts", None, "has nobody to write drafts", expected="--policy FOLDER as well",
                                  remedy="Name a policy, or leave it out"))  # fmt: skip
    if policy is not None:
        from fairlead.cli.annotating import make_chat_project
        from fairlead.cli.talking import open_policy

        sampler = open_policy(policy, template=template, temperature=temperature, max_new_tokens=max_new_tokens)
        make_chat_project(place_of(db), chat)
    serve_pages(
        place_of(db),
        host=host,
        port=port,
        url=url,
        allow_local_webhooks=local_webhooks,
        sampler=sampler,
        gives_drafts=drafts,
    )


@annotate_app.command("import", epilog="Example: fairlead annotate import pairs.jsonl --project harmless")
def import_texts(
    source: Annotated[Path, typer.Argument(help="File of pairs in any known format, or folder of both files of a run.", metavar="SOURCE")],
    project: ProjectName = "default", db: Db = None,
    kind: Annotated[str, typer.Option(help="comparison (raters vote on pairs) or demonstration (raters write the reply).")] = "comparison",
    votes: Annotated[int, typer.Option(help="Votes an item, where the project is new.", min=1)] = 3,
    calibration: Annotated[int, typer.Option(help="Items that everybody rates first, where the project is new.", min=0)] = 50,
    pairs_per_prompt: Annotated[int, typer.Option(help="Pairs of a prompt, from a folder.", min=1)] = 1,
    group_size: Annotated[int, typer.Option(help="Completions of an item: 2 to compare, 3 to 9 to rank all of a prompt.", min=2, max=9)] = 2,
    seed: Annotated[int, typer.Option(help="Which pairs, where there are more than wanted.")] = 0,
    drafts: Annotated[bool, typer.Option("--drafts", help="Demonstrations: offer the replies that SOURCE has as drafts.")] = False,
    source_format: Annotated[str | None, typer.Option("--format", help="Format of SOURCE; recognised when left out.", metavar="FORMAT")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Which column is what in a vendor's table (YAML).")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Import nothing when a row cannot be used.")] = False,
    gold: Annotated[bool, typer.Option("--gold", help="The file's answers are known to be right: serve these pairs as hidden anchors.")] = False,
    test: Annotated[str | None, typer.Option(help="With --gold: these pairs are the test of a skill (code, or language:de), no anchors.")] = None,
) -> None:  # fmt: skip
    """Put texts into a project, which is made when it is not there. Votes of other tools are kept apart; what cannot be used is listed."""
    from fairlead.cli.annotating import import_source, import_wanted

    if kind == "demonstration":
        import_wanted(place_of(db), source, project=project, with_drafts=drafts, is_strict=strict)
        return
    import_source(
        place_of(db),
        source,
        project=project,
        kind=kind,
        votes=votes,
        calibration=calibration,
        pairs_per_prompt=pairs_per_prompt,
        group_size=group_size,
        seed=seed,
        is_strict=strict,
        is_gold=gold,
        source_format=source_format,
        mapping=mapping,
        test=test,
    )


@annotate_app.command("invite", epilog="Example: fairlead annotate invite --role rater --count 5")
def invite(
    db: Db = None,
    role: Annotated[str, typer.Option(help="rater, adjudicator, lead or admin.")] = "rater",
    count: Annotated[int, typer.Option(help="How many links; each lets one person in.", min=1, max=100)] = 1,
    url: Annotated[
        str | None,
        typer.Option(help="Address that raters type; that of the server that was started last when left out."),
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Language that these people have; may be repeated.")
    ] = None,
    skill: Annotated[list[str] | None, typer.Option(help="Skill that these people have; may be repeated.")] = None,
) -> None:
    """Print links that let one person in each, within seven days."""
    from fairlead.cli.annotating import print_invites

    print_invites(place_of(db), role=role, count=count, url=url, languages=language or [], skills=skill or [])


@annotate_app.command("steer", epilog="Example: fairlead annotate steer --project harmless --set random_share=0.3")
def steer(
    project: ProjectName = "default", db: Db = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Change a setting; may be repeated.", metavar="NAME=VALUE")] = None,
    votes: Annotated[int | None, typer.Option(help="Votes an item.", min=1, max=100)] = None,
    reason: Annotated[str, typer.Option(help="Why, where you ask for more votes and kappa is not above 0.6.")] = "",
) -> None:  # fmt: skip
    """Show or change what steers who rates what: anchors, rounds, skills, the active choice of pairs."""
    from fairlead.cli.annotating_steering import steer_project

    steer_project(place_of(db), project, sets=sets or [], votes=votes, reason=reason)


@annotate_app.command("scores", epilog="Example: fairlead annotate scores scores.jsonl --project harmless")
def scores(
    source: Annotated[Path, typer.Argument(help="File with completion_id and value, or completion (the whole text) and score.", metavar="FILE")],
    project: ProjectName = "default", db: Db = None,
    strict: Annotated[bool, typer.Option("--strict", help="Import nothing when a row cannot be used.")] = False,
) -> None:  # fmt: skip
    """Take in what a reward model says of completions, for the active choice of pairs. Raters never see it."""
    from fairlead.cli.annotating_steering import import_scores

    import_scores(place_of(db), source, project=project, is_strict=strict)


@annotate_app.command("status", epilog="Example: fairlead annotate status")
def status(db: Db = None, as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:  # fmt: skip
    """Show how far each project is."""
    from fairlead.cli.annotating import show_status

    show_status(place_of(db), as_json=as_json)


@annotate_app.command("export", epilog="Example: fairlead annotate export votes/ --project harmless")
def export(
    out: Annotated[Path, typer.Argument(help="Folder to write; a file with any other format than native.", metavar="OUT")],
    project: ProjectName = "default", db: Db = None,
    to: Annotated[str, typer.Option("--format", help="native (for a recipe); labels (each pair under every method); or what `fairlead votes convert` "
                                    "writes: label_studio, argilla, trl, hh, ultrafeedback_binarized, helpsteer2, helpsteer2_preference, "
                                    "helpsteer3, fine_tuning, ...")] = "native",
    method: Annotated[str, typer.Option(help="How votes are added up, where the format holds labels or preferences; the rows name it.")] = "auto",
    blind: Annotated[bool, typer.Option("--blind", help="Leave the names of models out.")] = False,
    outside: Annotated[bool, typer.Option("--outside", help="With the votes of other tools.")] = False,
) -> None:  # fmt: skip
    """Write votes for a recipe (feedback.path) or other programs, or accepted demonstrations (sft.data); people under pseudonyms."""
    from fairlead.cli.annotating import export_rated, export_votes

    if to == "native":
        export_votes(place_of(db), out, project=project, is_blind=blind, with_outside=outside)
    else:
        export_rated(place_of(db), out, project=project, to=to, method=method, is_blind=blind, with_outside=outside)


@annotate_app.command("backup", epilog="Example: fairlead annotate backup votes-2026-11-28.db")
def backup(out: Annotated[Path, typer.Argument(help="File to write.", metavar="FILE")], db: Db = None) -> None:
    """Copy the database while it is in use (SQLite)."""
    from fairlead.cli.annotating import back_up_database

    back_up_database(place_of(db), out)


@annotate_app.command("restore", epilog="Example: fairlead annotate restore votes-2026-11-28.db --replace")
def restore(
    file: Annotated[Path, typer.Argument(help="File that backup wrote.", metavar="FILE")], db: Db = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of the present one, which is kept beside it.")] = False,
) -> None:  # fmt: skip
    """Put a copy back. Stop the server first."""
    from fairlead.web.backup import restore as put_back

    put_back(file, Path(place_of(db)), replaces=replace)
    terminal.say(f"Restored: {place_of(db)}")
    terminal.say("Next: fairlead annotate status")
