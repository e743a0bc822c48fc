"""`fairlead`: the command line. Each command parses, calls one function of the layers below, and prints at most ten lines.

Heavy packages are imported inside commands, so that `--help` and the rating side work without torch.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fairlead import __version__
from fairlead.cli import terminal, unexpected, usage
from fairlead.cli.annotate_access import annotate_app
from fairlead.cli.votes_commands import votes_app
from fairlead.core.errors import FairleadError, Interrupted, explain

app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Take a language model from raters to release. Run `fairlead quickstart` to see the whole loop.",
                  epilog="Example: fairlead quickstart")  # fmt: skip
registry_app = typer.Typer(
    help="List, show, promote, roll back and clean up models.", no_args_is_help=True, epilog="Example: fairlead registry ls"
)  # fmt: skip
reward_app = typer.Typer(
    help="Train, update and question reward models.", no_args_is_help=True, epilog="Example: fairlead reward train recipe.yaml"
)  # fmt: skip
app.add_typer(registry_app, name="registry")
app.add_typer(reward_app, name="reward")
app.add_typer(votes_app, name="votes")
app.add_typer(annotate_app, name="annotate")

Recipe = Annotated[Path, typer.Argument(help="Recipe file (YAML).", show_default=False, metavar="RECIPE")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key: path.to.key=value (YAML). May be repeated.", metavar="PATH=VALUE"),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", help="Pass a gate on record: gate=reason. May be repeated.", metavar="GATE=REASON"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ArtifactId = Annotated[str, typer.Argument(help="Artifact id or its beginning.", metavar="ARTIFACT")]
Unsandboxed = Annotated[
    bool, typer.Option("--allow-unsandboxed", help="Run programs of a policy without the sandbox, as you; recorded in the manifest.")
]  # fmt: skip
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]


def home() -> Path:
    """Folder of artifacts and runs."""
    return Path(os.environ.get("FAIRLEAD_HOME", "runs")).expanduser()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Without a command: the flow with the state of each stage of the newest run."""
    if version:
        terminal.say(f"fairlead {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        from fairlead.cli.overview import show_overview

        show_overview(home())


@app.command(epilog="Example: fairlead quickstart --set seed=1")
def quickstart(sets: Sets = None, allow: Allow = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Run the whole loop on the bundled model in minutes. SFT to released policy and report, on a laptop, without a network."""
    from fairlead.cli.running import run_recipe

    bundled = Path(__file__).parents[1] / "bundled" / "quickstart" / "recipe.yaml"
    run_recipe(
        bundled, sets=sets, allow=allow, home=home(), dry_run=dry_run, as_json=as_json, command="fairlead quickstart"
    )


@app.command(
    epilog="Example: fairlead run recipes/imdb_sentiment.yaml --set seed=1 --allow rewards.accuracy='first look'"
)
def run(
    recipe: Recipe, sets: Sets = None, allow: Allow = None, allow_unsandboxed: Unsandboxed = False, dry_run: DryRun = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run a recipe from prompts to release. Finished stages are reused, a killed run goes on."""
    from fairlead.cli.running import run_recipe

    run_recipe(recipe, sets=sets, allow=allow, home=home(), dry_run=dry_run, as_json=as_json, command=f"fairlead run {recipe}",
               allow_unsandboxed=allow_unsandboxed)  # fmt: skip


@app.command(epilog="Example: fairlead plan recipes/harmless_hh.yaml")
def plan(recipe: Recipe, sets: Sets = None, allow_unsandboxed: Unsandboxed = False, as_json: Json = False) -> None:
    """Print what a run would do and what it lacks. Stages, inputs, what would be reused; files and models that are not there."""
    from fairlead.cli.running import run_recipe

    run_recipe(recipe, sets=sets, allow=None, home=home(), dry_run=True, as_json=as_json, command=f"fairlead run {recipe}",
               allow_unsandboxed=allow_unsandboxed)  # fmt: skip


@app.command(epilog="Example: fairlead preflight recipe.yaml --stage policies.dpo")
def preflight(
    recipe: Recipe,
    stage: Annotated[
        str | None,
        typer.Option(help="Stage that trains: sft, rewards, policies.NAME; the first whose inputs are there when left out."),
    ] = None,
    sets: Sets = None, allow: Allow = None, allow_unsandboxed: Unsandboxed = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Check a training stage on its first batch. Nothing is trained or kept but caches; fails as the stage would."""
    from fairlead.cli.preflight import show_preflight

    show_preflight(
        recipe, sets=sets, allow=allow, stage=stage, home=home(), as_json=as_json, allow_unsandboxed=allow_unsandboxed
    )


def _stage_command(name: str, target: str, what: str, *, group: typer.Typer | None = None) -> None:
    words = name if group is None else f"reward {name}"

    def command(
        recipe: Recipe, sets: Sets = None, allow: Allow = None, dry_run: DryRun = False, as_json: Json = False
    ) -> None:
        from fairlead.cli.running import run_recipe

        run_recipe(
            recipe,
            sets=sets,
            allow=allow,
            home=home(),
            dry_run=dry_run,
            as_json=as_json,
            target=target,
            command=f"fairlead {words} {recipe}",
        )

    command.__doc__ = f"{what} Stages before it are reused or run first."
    (group or app).command(name, epilog=f"Example: fairlead {words} recipe.yaml")(command)


for _name, _target, _what in (
    ("prompts", "prompts", "Collect, de-duplicate and split prompts."),
    ("complete", "completions", "Sample completions for each prompt."),
    ("judge", "feedback", "Have completions judged."),
    ("prefer", "preferences", "Turn judgments or a file into preferences."),
):
    _stage_command(_name, _target, _what)
_stage_command("train", "rewards", "Train and measure the reward model.", group=reward_app)


@reward_app.command(
    "update", epilog="Example: fairlead reward update round2.yaml --from reward_model-3f2a --replay 0.5"
)
def reward_update(
    recipe: Recipe,
    start: Annotated[str, typer.Option("--from", help="Artifact id of the reward model to go on from.", metavar="ARTIFACT")],
    replay: Annotated[float, typer.Option(help="Share of its own training pairs that is trained on again.", min=0.0, max=1.0)] = 1.0,
    sets: Sets = None, allow: Allow = None, dry_run: DryRun = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Train an earlier reward model on, with the votes of a recipe and its own. Its lineage names both; stages before are reused or run first."""
    from fairlead.cli.running import run_recipe

    implied = [f"rewards.update={{model: {start}, replay: {replay}}}"]
    run_recipe(recipe, sets=sets, implied=implied, allow=allow, home=home(), dry_run=dry_run, as_json=as_json, target="rewards",
               command=f"fairlead reward update {recipe} --from {start} --replay {replay:g}")  # fmt: skip


@reward_app.command("score", epilog="Example: fairlead reward score quickstart --policy ppo --step 200")
def reward_score(
    name: Annotated[str, typer.Argument(help="Name of a run.", metavar="RUN")],
    policy: Annotated[str, typer.Option(help="Policy with composed rewards.")],
    step: Annotated[int | None, typer.Option(help="Optimiser step before which the samples were scored; all when left out.", min=0)] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Score a policy's logged samples again by the models that were active then. Fails when a score is not what it was."""
    from fairlead.cli.rescoring import show_scores

    show_scores(home(), name, policy=policy, step=step, as_json=as_json)


@app.command(epilog="Example: fairlead train recipe.yaml --policy dpo")
def train(
    recipe: Recipe,
    policy: Annotated[str, typer.Option(help="Name of a policy in the recipe, `sft`, or `all`.")] = "all",
    sets: Sets = None, allow: Allow = None, allow_unsandboxed: Unsandboxed = False, dry_run: DryRun = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Train policies: SFT, DPO, PPO. Stages before them are reused or run first."""
    from fairlead.cli.running import run_recipe

    # "train" is pipeline.plan.ALL_POLICIES, which to import takes torch.
    target = {"all": "train", "sft": "sft"}.get(policy, f"policies.{policy}")
    run_recipe(
        recipe,
        sets=sets,
        allow=allow,
        home=home(),
        dry_run=dry_run,
        as_json=as_json,
        target=target,
        command=f"fairlead train {recipe}" + ("" if policy == "all" else f" --policy {policy}"),
        allow_unsandboxed=allow_unsandboxed,
    )


_stage_command("eval", "evals", "Measure what changed against the frozen criteria.")
_stage_command("release", "releases", "Choose and write the released model.")


@app.command(epilog="Example: fairlead report quickstart")
def report(
    name: Annotated[str | None, typer.Argument(help="Name of a run; the newest when left out.", metavar="RUN")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it; the run's folder when left out.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Serve what trains now on this machine, updating, until ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of --follow; 0 takes a free one.", min=0, max=65535)] = 8642,
) -> None:
    """Draw the report of a run again from its artifacts. With --follow: the training that goes on, as a page that updates."""
    from fairlead.cli.reporting import redraw, serve

    if follow:
        serve(home(), port)
        return

    terminal.say(f"Report: {redraw(home(), name, out)}")
    terminal.say("Next: open it in a browser; it is one file and needs no network.")


@app.command(epilog="Example: fairlead follow")
def follow() -> None:
    """Watch in the terminal what trains now. KL, reward, length, alerts, samples beside the reference's; ctrl-C leaves the training alone."""
    from fairlead.cli.follow import show_live

    show_live(home())


@app.command(epilog="Example: fairlead lineage quickstart")
def lineage(
    artifact: Annotated[
        str,
        typer.Argument(
            help="Artifact id (or its beginning), or the name of a run for its last artifact.", metavar="ARTIFACT"
        ),
    ],
    as_json: Json = False,
) -> None:
    """Walk from an artifact back to its votes and files."""
    from fairlead.cli.lineage import show_lineage

    show_lineage(home(), artifact, as_json=as_json)


@app.command(epilog="Example: fairlead checkpoints quickstart")
def checkpoints(
    name: Annotated[str | None, typer.Argument(help="Name of a run; all when left out.", metavar="RUN")] = None,
    set_back: Annotated[
        str | None,
        typer.Option(
            help="Forget the checkpoints after this one, so that the run goes on from it.", metavar="CHECKPOINT"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the checkpoints of stages in progress. Set one back to an earlier step."""
    from fairlead.cli.checkpoints import show_checkpoints

    show_checkpoints(home(), name, set_back=set_back, as_json=as_json)


@app.command(
    epilog="Example: fairlead init --goal 'kinder support mails' --pairs 1500 --agreement 0.72 --out recipe.yaml"
)
def init(
    goal: Annotated[str | None, typer.Option(help="What should change, in a sentence.")] = None,
    model: Annotated[str | None, typer.Option(help="Model folder or hub id.")] = None,
    hardware: Annotated[str | None, typer.Option(help="laptop, one-gpu, node (8 GPUs), cluster.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Preference pairs that you have or can pay for.", min=0)] = None,
    agreement: Annotated[
        float | None, typer.Option(help="Share of pairs on which two raters agree.", min=0.0, max=1.0)
    ] = None,
    needs: Annotated[
        str | None, typer.Option(help="Comma-separated: verifiable, online, reranking, dimensions; `none`.")
    ] = None,
    narrow: Annotated[str | None, typer.Option(help="Scaffold a small project: summarise, tone, or corpus-qa.")] = None,
    out: Annotated[Path, typer.Option(help="Recipe file (or project folder with --narrow) to write.")] = Path(
        "recipe.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write a commented recipe from a few answers. The rule that decided is named; nothing is asked where no terminal is."""
    from fairlead.cli.init import Answers, write_project

    answers = Answers(
        goal=goal, model=model, hardware=hardware, pairs=pairs, agreement=agreement, needs=needs, narrow=narrow
    )
    for line in write_project(answers, out, force=force, ask=_ask if sys.stdin.isatty() else None):
        terminal.say(line)


def _ask(question: str, default: str) -> str:
    return typer.prompt(question, default=default)


@app.command("import-config", epilog="Example: fairlead import-config axolotl dpo.yml --out recipe.yaml")
def import_config(
    source: Annotated[str, typer.Argument(help="axolotl, trl, llamafactory, dschat or openrlhf.", metavar="TOOL")],
    file: Annotated[
        Path, typer.Argument(help="The configuration (YAML, JSON, or a shell script with flags).", metavar="FILE")
    ],
    out: Annotated[Path, typer.Option(help="Recipe file to write.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Translate another tool's configuration to a recipe. Every key that could not be translated is listed with its reason."""
    from fairlead.cli.import_config import translate_file

    for line in translate_file(source, file, out, force=force):
        terminal.say(line)


@app.command(epilog="Example: fairlead doctor")
def doctor(as_json: Json = False) -> None:
    """Look at this machine and installation. Versions, devices, memory, disk, what is missing."""
    from fairlead.cli.doctor import show_doctor

    show_doctor(home(), as_json=as_json)


@registry_app.command("ls", epilog="Example: fairlead registry ls")
def registry_ls(as_json: Json = False) -> None:
    """List reward models and policies with their state."""
    from fairlead.cli.registry import list_entries

    list_entries(home(), as_json=as_json)


@registry_app.command("show", epilog="Example: fairlead registry show policy-3f2a")
def registry_show(artifact: ArtifactId, as_json: Json = False) -> None:
    """Show where an artifact came from, its figures and verdicts."""
    from fairlead.cli.registry import show_artifact

    show_artifact(home(), artifact, as_json=as_json)


@registry_app.command(
    "promote", epilog="Example: fairlead registry promote policy-3f2a --to released --reason 'won the blind test'"
)
def registry_promote(
    artifact: ArtifactId,
    to: Annotated[str, typer.Option(help="approved or released.")] = "approved",
    reason: Annotated[str, typer.Option(help="Why; kept in the log.")] = "",
) -> None:
    """Move an artifact to the next state."""
    from fairlead.cli.registry import promote

    promote(home(), artifact, to=to, reason=reason)


@registry_app.command("rollback", epilog="Example: fairlead registry rollback")
def registry_rollback(
    kind: Annotated[str, typer.Option(help="policies or reward_models.")] = "policies",
    reason: Annotated[str, typer.Option(help="Why; kept in the log.")] = "",
) -> None:
    """Make the previous release current again."""
    from fairlead.cli.registry import roll_back

    roll_back(home(), kind, reason=reason)


@registry_app.command("gc", epilog="Example: fairlead registry gc --keep-last 3 --apply")
def registry_gc(
    keep_last: Annotated[int, typer.Option(help="Runs of each stage to keep besides what is needed.", min=0)] = 3,
    work: Annotated[
        bool, typer.Option("--work", help="Work folders of older versions too: runs that cannot go on any more.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Really delete; otherwise only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Delete artifacts that nothing needs. What a release or a used reward model needs is never taken."""
    from fairlead.cli.registry import collect_garbage

    collect_garbage(home(), keep_last=keep_last, takes_work=work, is_dry=not apply, as_json=as_json)


_EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "peft", "safetensors", "datasets"), "train"),
    **dict.fromkeys(("sqlalchemy", "alembic", "fastapi", "uvicorn", "argon2", "nh3", "markdown_it"), "web"),
}
"""Which extra holds a package that is not there."""


def main() -> None:
    """Entry point: errors on one line, no traceback for what a user can cause; other faults leave theirs in a file."""
    # Threads that wait for each other spin for milliseconds by default; beside any other busy process that made steps 20 times
    # slower (measured), and a short spin costs nothing on a quiet machine. Read once, when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        code = app(prog_name="fairlead", standalone_mode=False)
        if code == Interrupted.exit_code:  # Typer turns ctrl-C into this code and says nothing
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except usage.UsageError as error:
        usage.fail(error)
    except FairleadError as error:
        terminal.fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        terminal.fail("interrupted; run the same command again to go on", Interrupted.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "fairlead").startswith("fairlead"):
            terminal.fail(unexpected.describe(error, home()), unexpected.EXIT_CODE)
        extra = _EXTRAS.get((error.name or "").split(".")[0], "all")
        terminal.fail(
            explain(
                str(error.name),
                None,
                "is not installed",
                expected=f"fairlead[{extra}]",
                remedy=f"pip install 'fairlead[{extra}]'",
            ),
            1,
        )
    except OSError as error:
        if error.errno is None:
            terminal.fail(unexpected.describe(error, home()), unexpected.EXIT_CODE)
        terminal.fail(explain(error.filename or "file", None, f"failed ({error.strerror})", expected="a readable, writable place",
                              remedy="Check the path, permissions and free space"), 1)  # fmt: skip
    except Exception as error:
        terminal.fail(unexpected.describe(error, home()), unexpected.EXIT_CODE)


if __name__ == "__main__":
    main()
