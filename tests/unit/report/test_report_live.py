"""The live report: what a work folder holds is shown, KL first; the server answers this machine alone and changes nothing."""

import contextlib
import http.client
import io
import json
import math
import os
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from fairlead.cli.follow import draw, spark
from fairlead.core.io import write_json, write_jsonl
from fairlead.core.summary import Series
from fairlead.report import build_report
from fairlead.report.follow import make_server
from fairlead.report.live import read_live
from fairlead.store.work import work_alone
from fairlead.telemetry import DEFAULT_RULES, JsonlSink, alert_table, replay

EVIL = "<script>window.pwned=1</script> [bold]x"


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Work folder of a PPO training at step 40 whose KL rises out of its band, and whose process is gone."""
    work = tmp_path / "work" / "abc"
    write_json(work / "live.json", {"title": "ppo", "run": "demo/policies.ppo", "num_steps": 100})
    rows = [
        (step, {"loss": 0.1, "rl/score": 0.05 * step, "rl/reward": 0.04 * step, "rl/kl_k1": 0.02 * step, "rl/length_tokens": 20.0 + step,
                "rl/entropy": 2.0 - 0.01 * step, "rl/kl_coef": 0.2, "rl/kl_k1_error": 0.01, "train/step_s": 1.5})
        for step in range(1, 41)
    ]  # fmt: skip
    with contextlib.closing(JsonlSink(work / "metrics.jsonl")) as sink:
        for step, metrics in rows:
            sink.log(step, metrics)
    write_jsonl(work / "alerts.jsonl", [alert.to_dict() for alert in replay(DEFAULT_RULES, rows)])
    pair = {
        "prompt": "Say it.",
        "before": "As it was.",
        "after": f"As it is now {EVIL}",
        "before_score": 0.1,
        "after_score": 0.9,
    }
    write_jsonl(work / "samples.jsonl", [pair])
    return tmp_path


@pytest.fixture
def home(left: Path):
    """The same while its process lives."""
    with work_alone(left / "work" / "abc", stage="policies.ppo", code="1"):
        yield left


def test_the_run_is_told_with_kl_first(home: Path):
    run = read_live(home)
    assert run is not None
    heard = r"ppo is at step 40 of 100, 1.50 s a step, about 1 min 30 s left; its last row is of [\d:]{8} UTC. 2 alerts, the last: WARN kl_high."
    assert re.fullmatch(heard, run.answer)
    assert run.key_figures[0].name == "KL" and run.key_figures[0].low == pytest.approx(0.8 - 0.0196)
    summary = run.stages[0].summary
    assert summary.charts[0].question == "How far does the policy move from its reference?"
    assert summary.charts[0].series[0].points[-1] == (40.0, pytest.approx(0.8))
    assert [row[2] for row in summary.tables[0].rows] == ["kl_high", "length"]
    assert summary.tables[0].rows[0][3:5] == ("rl/kl_k1 0.560 nats/token", "at most 0.500 nats/token")
    assert summary.samples[0].after.endswith("x")


def test_a_calm_training_says_that_there_was_no_alert(home: Path):
    (home / "work" / "abc" / "alerts.jsonl").unlink()
    run = read_live(home)
    assert run is not None and run.answer.endswith("No alert.")
    page = build_report(run)
    assert '<p class="empty">No alert so far.</p>' in page and "found nothing to list" not in page
    assert alert_table([], is_over=True).empty == "No alert."


def test_tokens_a_second_are_told_by_phase(home: Path):
    rates = {"rl/sample_tokens_per_s": 9000.0, "rl/score_tokens_per_s": 80.0, "rl/train_tokens_per_s": 300.0}
    with contextlib.closing(JsonlSink(home / "work" / "abc" / "metrics.jsonl")) as sink:
        sink.log(41, {"rl/kl_k1": 0.1, "train/step_s": 1.5, **rates})
    run = read_live(home)
    assert run is not None
    assert "step 41 of 100, 1.50 s a step (generate 9,000, score 80, update 300 tokens/s)" in run.answer
    summary = run.stages[0].summary
    (chart,) = (chart for chart in summary.charts if chart.question == "How fast is each phase?")
    assert [(s.label, s.points[-1]) for s in chart.series] == [
        ("generate", (41.0, 9000.0)), ("score", (41.0, 80.0)), ("update", (41.0, 300.0))
    ]  # fmt: skip
    assert {name for name, *_ in summary.tables[1].rows} >= rates.keys()


def test_every_metric_stands_beside_its_healthy_range_and_losses_stand_under_diagnostics(home: Path):
    with contextlib.closing(JsonlSink(home / "work" / "abc" / "metrics.jsonl")) as sink:
        sink.log(41, {"rl/sampling_gap": 0.01, "rl/clip_fraction": float("nan"), "rl/value_loss": 2.0})
    run = read_live(home)
    assert run is not None
    _, every, losses = run.stages[0].summary.tables
    rows = {row[0]: row[1:5] for row in every.rows}
    assert every.rows[0][:5] == ("rl/kl_k1", pytest.approx(0.8), "nats/token", "0 to 0.5", "outside")
    assert rows["rl/sampling_gap"] == (0.01, "nats/token", "0 to 0.05", "") and rows["rl/length_tokens"] == (
        60.0,
        "tokens",
        "",
        "",
    )
    assert math.isnan(rows["rl/clip_fraction"][0]) and rows["rl/clip_fraction"][3] == "outside"
    assert losses.title.startswith("Diagnostics") and [row[0] for row in losses.rows] == ["rl/value_loss", "loss"]
    assert "loss" not in rows
    page = build_report(run)
    assert page.index("Every metric") < page.index("Diagnostics, at their last step")


def test_a_training_that_a_rule_stopped_is_not_said_to_go_on(home: Path):
    path = home / "work" / "abc" / "alerts.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [*rows[:-1], {**rows[-1], "step": 40, "results": ["stopped here"]}])
    run = read_live(home)
    assert run is not None and run.answer.startswith("ppo was stopped at step 40 of 100")
    assert run.stages[0].summary.headline == "Training was stopped by a rule."


def test_a_training_whose_process_is_gone_is_not_said_to_go_on(left: Path):
    run = read_live(left)
    assert run is not None
    assert re.match(r"ppo ended at step 40 of 100, 1.50 s a step; its last row is of", run.answer)
    assert run.stages[0].summary.headline.startswith("Nobody trains it any more: its process ended before it was done.")
    assert (left / "work").exists() and [path.name for path in (left / "work").iterdir()] == [
        "abc"
    ]  # looking changes nothing


def test_before_the_first_row_it_says_so(home: Path):
    (home / "work" / "abc" / "metrics.jsonl").write_text("")
    (home / "work" / "abc" / "alerts.jsonl").unlink()
    run = read_live(home)
    assert run is not None and run.answer == "ppo is at step 0 of 100; no row was logged yet. No alert."
    assert [table.title for table in run.stages[0].summary.tables] == ["Alerts"]
    out = Console(file=io.StringIO(), width=120)
    out.print(draw(home))
    assert "first" not in out.file.getvalue() and "As it was." in out.file.getvalue()


def test_what_runs_is_shown_before_what_was_left_later(home: Path):
    write_json(home / "work" / "old" / "live.json", {"title": "sft", "run": "demo/sft", "num_steps": 9})
    with contextlib.closing(JsonlSink(home / "work" / "old" / "metrics.jsonl")) as sink:
        sink.log(1, {"loss": 2.0, "sft/loss": 2.0})
    run = read_live(home)
    assert run is not None and run.answer.startswith("ppo is at step 40")


def test_the_live_page_says_nothing_that_only_a_finished_run_knows(home: Path):
    write_json(home / "demo" / "recipe.json", {"scope": "toy", "model": "bundled"})
    run = read_live(home)
    assert run is not None and (run.scope, run.model) == ("toy", "bundled")
    main = build_report(run, is_live=True)
    words = (
        "No gate",
        "no gate",
        "nothing to pass",
        "not finished",
        "0.0 s",
        "What did it cost?",
        "Where does it come from?",
        "How to make it again",
    )
    assert [word for word in words if word in main] == []
    assert "Gates are judged when it is done." in main and "last row" in main
    assert all(word in build_report(run) for word in ("What did it cost?", "How to make it again"))


def test_nothing_is_shown_while_nothing_trains(tmp_path: Path):
    assert read_live(tmp_path) is None
    (tmp_path / "work" / "x").mkdir(parents=True)
    (tmp_path / "work" / "x" / "live.json").write_text("{")
    (tmp_path / "work" / "x" / "metrics.jsonl").write_text("")
    assert read_live(tmp_path) is None


def test_a_training_of_another_kind_shows_its_own_metrics(tmp_path: Path):
    write_json(tmp_path / "work" / "a" / "live.json", {"title": "sft", "run": "demo/sft", "num_steps": 9})
    with contextlib.closing(JsonlSink(tmp_path / "work" / "a" / "metrics.jsonl")) as sink:
        sink.log(1, {"loss": 2.0, "sft/loss": 2.0})
    run = read_live(tmp_path)
    assert run is not None and [chart.series[0].label for chart in run.stages[0].summary.charts] == ["loss"]
    assert "step 1 of 9" in run.answer
    assert not run.stages[0].summary.charts[0].question.endswith("?")  # its meaning is no question


@pytest.fixture
def server(home: Path):
    with make_server(home, port=0) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server, path: str = "/", *, method: str = "GET", host: str | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer, answer.read().decode()


def test_the_page_may_ask_its_own_server_and_nobody_else(server):
    answer, page = ask(server)
    assert answer.status == 200 and "ppo is at step 40 of 100" in page
    policy = answer.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert EVIL not in page and "&lt;script&gt;window.pwned" in page
    assert (
        "http://" not in page.replace("http://www.w3.org", "").replace("http://127.0.0.1", "")
        and "https://" not in page
    )


def test_news_come_when_a_step_was_logged(server, home: Path):
    first = json.loads(ask(server, "/live.json")[1])
    assert json.loads(ask(server, "/live.json")[1]) == first and first["main"].startswith("<main>")
    with contextlib.closing(JsonlSink(home / "work" / "abc" / "metrics.jsonl")) as sink:
        sink.log(41, {"rl/kl_k1": 0.5})
    second = json.loads(ask(server, "/live.json")[1])
    assert second["revision"] != first["revision"] and "step 41 of 100" in second["main"]


def test_damage_is_named_and_not_taken_for_nothing(server, home: Path):
    path = home / "work" / "abc" / "metrics.jsonl"
    path.write_text("rubbish\n" + path.read_text())
    answer, page = ask(server)
    assert (
        answer.status == 200 and "metrics.jsonl:1" in page and "<dd></dd>" not in page and "Nothing trains" not in page
    )


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "192.168.0.7", ""])
def test_a_name_that_is_not_of_this_machine_is_refused(server, host: str):
    answer, text = ask(server, "/live.json", host=host or " ")
    assert answer.status in (400, 403) and "step" not in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8642"])
def test_names_of_this_machine_are_answered(server, host: str):
    assert ask(server, host=host)[0].status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/", 501), ("PUT", "/live.json", 501), ("GET", "/../../etc/passwd", 404), ("HEAD", "/", 200)],
)
def test_it_is_read_only(server, method: str, path: str, status: int):
    answer, text = ask(server, path, method=method)
    assert answer.status == status and "root:" not in text and (method != "HEAD" or text == "")


def test_a_finished_report_still_loads_nothing(home: Path):
    run = read_live(home)
    assert run is not None
    assert "connect-src" not in build_report(run) and "live.json" not in build_report(run)


def test_the_terminal_shows_curves_alerts_and_samples_as_plain_text(home: Path):
    out = Console(file=io.StringIO(), width=120)
    out.print(draw(home))
    text = out.file.getvalue()
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[0].startswith("ppo is at step 40 of 100")
    assert any(line.startswith("KL") and "0.800" in line and "█" in line for line in lines)
    assert "WARN step" in text and "As it was." in text and "[bold]x" in text
    assert "Training goes on." in text and "Say it." in text


def test_while_nothing_trains_the_terminal_and_the_page_name_the_newest_report(tmp_path: Path):
    out = Console(file=io.StringIO(), width=400)
    out.print(draw(tmp_path))
    assert out.file.getvalue().strip().endswith("as soon as it logs its first step: fairlead run RECIPE")
    for name, at in (("old", 1), ("new", 3), ("older", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").touch()
        os.utime(tmp_path / name / "report.html", (at, at))
    out.print(draw(tmp_path))
    assert out.file.getvalue().strip().endswith(f"The newest report: {tmp_path / 'new' / 'report.html'}")


def test_a_spark_line_by_hand():
    assert spark(Series(label="x", role="policy", points=((0, 0.0), (1, 0.5), (2, 1.0)))) == "▁▅█"
    assert spark(Series(label="x", role="policy", points=((0, 2.0), (1, 2.0)))) == "▁▁"
    assert spark(Series(label="x", role="policy", points=((0, math.nan), (1, 0.0), (2, math.inf), (3, 1.0)))) == "▁█"
    assert spark(Series(label="x", role="policy", points=((0, math.nan),))) == ""
