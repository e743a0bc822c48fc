"""A command that was typed wrong ends with one line, as every other error does."""

from typing import Any, NoReturn, cast

import typer

from fairlead.cli import terminal
from fairlead.core.errors import ConfigError, explain, nearest

UsageError: type[Exception] = cast(type[Exception], typer.BadParameter.__base__)
"""Click's class; one version of Typer imports click, another carries it, so it is taken from where both have it."""


def fail(error: Any) -> NoReturn:
    """Say what was wrong, what is expected and where to look; a group without a command shows its help instead."""
    context, message = error.ctx, str(error.format_message()).strip()
    path = context.command_path if context is not None else "fairlead"
    commands = getattr(context.command, "commands", {}) if context is not None else {}
    if type(error).__name__ == "NoArgsIsHelpError":
        terminal.say(message)
        raise SystemExit(ConfigError.exit_code)
    remedy = f"See {path} --help"
    if commands and "No such command" in message:
        name = message.split("'")[1]
        text = explain(
            "command",
            name,
            f"is not known{nearest(name, commands)}",
            expected="one of " + ", ".join(commands),
            remedy=remedy,
        )
    else:
        text = f"{path.removeprefix('fairlead ')}: {message[0].lower()}{message[1:].rstrip('.')}. {remedy}."
    terminal.fail(text, ConfigError.exit_code)
