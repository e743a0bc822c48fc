"""The terminal: tables are never cut, the progress line fits, a command that was typed wrong ends with one line."""

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.table import Table

from fairlead.cli import terminal
from fairlead.cli.main import main

ID = "reward_model-c95cd57dd41e96ef"


def screen(monkeypatch: pytest.MonkeyPatch, *, width: int, is_terminal: bool = True) -> io.StringIO:
    """A terminal of that width whose text can be read."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=is_terminal,
        no_color=True,
        highlight=False,
        emoji=False,
        soft_wrap=True,
    )
    monkeypatch.setattr(terminal, "console", console)
    monkeypatch.setattr(sys, "stdout", out)
    return out


@pytest.mark.parametrize(("width", "is_terminal"), [(30, True), (60, True), (80, True), (80, False)])
def test_no_table_is_cut(monkeypatch: pytest.MonkeyPatch, width: int, is_terminal: bool) -> None:
    """Also where the longest words need more than the terminal has: then lines are longer than it."""
    out = screen(monkeypatch, width=width, is_terminal=is_terminal)
    table = Table(box=None)
    for column in ("artifact", "name", "a remark of several words", "estimated accuracy"):
        table.add_column(column)
    table.add_row(ID, "micro/policies.ppo", "nothing to say about it", "0.498")
    terminal.show_table(table)
    text = out.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text and ID in text and "micro/policies.ppo" in text and "0.498" in text


@pytest.mark.parametrize(("text", "hang"), [("    policies: " + "word " * 40, 4), ("Released " + "word " * 40, 2)])
def test_a_long_line_is_broken_between_words_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, text: str, hang: int
) -> None:
    out = screen(monkeypatch, width=60)
    text += "/a/path/that/is/longer/than/the/terminal/is/wide/and/stays/in/one/piece"
    terminal.say(text)
    lines = out.getvalue().splitlines()
    assert lines[-1].strip().endswith("/one/piece") and lines[-1].strip().startswith("/a/path")
    assert all(len(line) <= 60 for line in lines[:-1]) and all(
        line.startswith(" " * hang + line[hang]) for line in lines[1:]
    )
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    piped = screen(monkeypatch, width=60, is_terminal=False)
    terminal.say(text)
    assert piped.getvalue() == text + "\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_error_is_one_line_that_a_terminal_breaks_between_words(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(
        terminal, "errors", Console(file=out, width=60, force_terminal=is_terminal, soft_wrap=True, color_system=None)
    )
    text = "sft.training.learning_rate=fast has a wrong value; expected a number of some kind that is long enough. Change it."
    with pytest.raises(SystemExit) as left:
        terminal.fail(text, 2)
    lines = out.getvalue().splitlines()
    assert left.value.code == 2 and len(lines) == (3 if is_terminal else 1)
    assert all(len(line) <= 60 for line in lines) == is_terminal
    assert " ".join(" ".join(lines).split()).endswith("expected a number of some kind that is long enough. Change it.")


def test_data_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    out = screen(monkeypatch, width=20)
    terminal.say('{\n  "a": "' + "x y " * 20 + '"\n}')
    assert len(out.getvalue().splitlines()) == 3


def test_the_rate_of_a_run_that_goes_on_is_that_of_the_steps_it_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 of 200 steps were done before; 20 more in 40 s are 0.5/s, and 80 at that rate take 160 s."""
    out = screen(monkeypatch, width=80, is_terminal=False)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=iter([0.0, 1.0, 11.0, 41.0]).__next__))
    with terminal.progress("ppo", 200) as bar:
        bar.advance(100)
        bar.advance(10)
        bar.advance(10)
    assert out.getvalue() == "ppo 120/200, 0.5/s, 160 s left\n"


@pytest.mark.parametrize(("width", "has_bar"), [(80, False), (120, True)])
def test_the_progress_line_fits(monkeypatch: pytest.MonkeyPatch, width: int, has_bar: bool) -> None:
    out = screen(monkeypatch, width=width)
    note = "accuracy 0.612, 12,140 tokens/s, 0.223 s/step"
    with terminal.progress("reward model", 24) as bar:
        bar.advance(12, note=note)
    assert note in out.getvalue()
    assert ("\N{BOX DRAWINGS HEAVY HORIZONTAL}" in out.getvalue()) == has_bar


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ruun", "command=ruun is not known (did you mean run?); expected one of quickstart, run,"),
        ("votes importt", "command=importt is not known (did you mean import?); expected one of import, agreement,"),
        ("run", "run: missing argument 'RECIPE'. See fairlead run --help."),
        ("run --bogus x", "run: no such option: --bogus"),
        ("registry gc --keep-last=-1", "registry gc: invalid value for '--keep-last'"),
    ],
)  # fmt: skip
def test_what_was_typed_wrong_is_said_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["fairlead", *words.split()])
    with pytest.raises(SystemExit) as left:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and len(lines) == 1 and lines[0].startswith(f"fairlead: {message}")


def test_a_group_without_a_command_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fairlead", "registry"])
    with pytest.raises(SystemExit):
        main()
    assert "rollback" in capsys.readouterr().out


def test_a_second_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fairlead.cli.overview.show_overview", interrupted)
    monkeypatch.setattr(sys, "argv", ["fairlead"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130 and "run the same command again" in capsys.readouterr().err


def test_no_line_of_a_help_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["registry"], ["votes"]):
        monkeypatch.setattr(sys, "argv", ["fairlead", *words, "--help"])
        with pytest.raises(SystemExit):
            main()
        text = capsys.readouterr().out
        assert "Example: fairlead" in text and not [
            line for line in text.splitlines() if line.endswith("...") and "Usage" not in line
        ]
