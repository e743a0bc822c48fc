"""`fairlead annotate`: tokens of programs, and the log of who did what."""

from typing import Annotated

import typer

from fairlead.cli.annotate import Db, annotate_app, place_of

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@annotate_app.command("token", epilog="Example: fairlead annotate token 'Ann Lee' --scope read --days 30")
def token(
    person: Annotated[str, typer.Argument(help="Whom the program acts for.", metavar="NAME")],
    scope: Annotated[
        str, typer.Option(help="read, rate, adjudicate or lead; never more than the person's role.")
    ] = "read",
    days: Annotated[int, typer.Option(help="How long it is good.", min=1, max=366)] = 90,
    label: Annotated[str, typer.Option("--for", help="What it is for.")] = "command line",
    db: Db = None,
) -> None:
    """Make a token for the API and print it once."""
    from fairlead.cli.annotating_access import print_token

    print_token(place_of(db), person=person, scope=scope, num_days=days, label=label)


@annotate_app.command("tokens", epilog="Example: fairlead annotate tokens")
def tokens(db: Db = None, as_json: Json = False) -> None:
    """List tokens: first characters, owner, scope, when they end."""
    from fairlead.cli.annotating_access import show_tokens

    show_tokens(place_of(db), as_json=as_json)


@annotate_app.command("revoke", epilog="Example: fairlead annotate revoke fairlead_x7Qp2a")
def revoke(
    prefix: Annotated[str, typer.Argument(help="First characters, as tokens lists them.", metavar="TOKEN")], db: Db = None
) -> None:  # fmt: skip
    """End a token at once."""
    from fairlead.cli.annotating_access import end_token

    end_token(place_of(db), prefix)


@annotate_app.command("audit", epilog="Example: fairlead annotate audit --kind person. --count 50")
def audit(
    kind: Annotated[str, typer.Option(help="What the kind begins with: person., token., project., guideline.")] = "",
    count: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=500)] = 100,
    db: Db = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Show who did what."""
    from fairlead.cli.annotating_access import show_audit

    show_audit(place_of(db), kind=kind, count=count, as_json=as_json)


@annotate_app.command("erase", epilog="Example: fairlead annotate erase 'Ann Lee' --yes")
def erase(
    person: Annotated[str, typer.Argument(help="Whom, by name.", metavar="NAME")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would go.")] = False,
    db: Db = None,
) -> None:
    """Erase a person: name, password, tokens and free text. Votes stay under the pseudonym."""
    from fairlead.cli.annotating_access import erase_named

    erase_named(place_of(db), person=person, is_sure=yes)
