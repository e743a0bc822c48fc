"""Curves and profile of the training core: their arithmetic by hand, and both on small steps."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from benchmarks.charts import write_svg  # noqa: E402
from benchmarks.gpu import work as tiny_work  # noqa: E402
from benchmarks.offline import scaling, step_profile  # noqa: E402
from benchmarks.offline.scaling import Curve, Rows  # noqa: E402

from fairlead.core.summary import Chart, Series  # noqa: E402
from fairlead.models.attention import TreeAttention  # noqa: E402
from fairlead.train.loop import Learner  # noqa: E402

TINY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def test_a_line_by_hand():
    """y = 2 + 3 x exactly; then 0, 0, 3 over 0, 1, 2: slope 3/2, intercept -1/2, of the variance 6 remain 3/2."""
    assert scaling.fit_line([(0, 2), (1, 5), (4, 14)]) == pytest.approx({"intercept": 2, "slope": 3, "r2": 1})
    assert scaling.fit_line([(0, 0), (1, 0), (2, 3)]) == pytest.approx({"intercept": -0.5, "slope": 1.5, "r2": 0.75})


def test_the_line_to_compare_with_trains_on_the_same(tmp_path):
    """Shared and unshared prompts: the same completions, the same loss, more tokens."""
    rows = Rows(prompts=2, prompt=6, completions=3, completion=4, vocabulary=320)
    (shared,), (apart,) = (scaling.make_trees(r, num=1) for r in (rows, scaling.replace(rows, is_shared=False)))
    assert (len(shared), len(apart)) == (2, 6)
    assert sum(t.num_tokens for t in shared) == 2 * (6 + 12) and sum(t.num_tokens for t in apart) == 6 * 10
    losses = [scaling.make_learner(rows, precision="fp32", shape=TINY).step(batch)["loss"] for batch in (shared, apart)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_curves_are_measured_written_and_drawn(tmp_path, monkeypatch):
    points = tuple((k, Rows(prompts=2, prompt=8, completions=k, completion=4)) for k in (1, 2))
    curve = Curve(
        question="Shared?", x_label="k", y_label="seconds", points=points, per_completion=True, has_unshared=True
    )
    monkeypatch.setattr(scaling, "CURVES", {"completions": curve, "tokens": scaling.replace(curve, has_unshared=False)})
    results, chart = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    assert scaling.main(["--steps", "2", "--precision", "fp32", "--threads", str(torch.get_num_threads()), "--results", str(results),
                         "--chart", str(chart)]) == 0  # fmt: skip
    shared, plain = json.loads(results.read_text())
    assert set(shared["series"]) == {"shared", "unshared"} and [r["x"] for r in shared["ratio"]] == [1, 2]
    assert plain["fit"]["step"].keys() == {"intercept", "slope", "r2"} and plain["device"] and plain["commit"]
    for point in shared["series"]["shared"]:
        assert point["num_steps"] == 2 and 0 < point["min_s"] <= point["median_s"] <= point["max_s"]
    text = "".join(ElementTree.parse(chart).getroot().itertext())
    assert text.count("Shared?") >= 2 and "unshared" in text and "fitted line" in text


def test_a_drawing_is_well_formed(tmp_path):
    chart = Chart(
        question="a < b & c?",
        x_label="x",
        y_label="y",
        series=(Series(label="s", role="policy", points=((0, 1), (2, 3))),),
    )
    write_svg(tmp_path / "one.svg", [chart] * 3)
    root = ElementTree.parse(tmp_path / "one.svg").getroot()
    assert root.tag.endswith("svg") and len([child for child in root if child.tag.endswith("svg")]) == 3
    assert "a < b & c?" in "".join(root.itertext())


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["aten::mm", "aten::linear", "part: linear products", "part: backbone", "part: loss, Python, the rest"], "linear products"),
        (["aten::copy_", "part: linear products", "part: backbone"], "linear products"),
        (["aten::mul", "part: backbone"], "rotary, activations, residuals"),
        (["aten::mm", "part: backbone"], "linear products"),
        (["aten::bmm", "part: attention", "part: backbone"], "attention"),
        (["aten::mm", "part: head and logprobs"], "head and logprobs"),
        (["aten::mm", "autograd::engine::evaluate_function: _AttendBackward"], "attention"),
        (["aten::mm", "autograd::engine::evaluate_function: _LowLinearBackward"], "linear products"),
        (["aten::mul", "autograd::engine::evaluate_function: SiluBackward0"], "rotary, activations, residuals"),
        (["aten::mm", "autograd::engine::evaluate_function: SomethingNewBackward"], "linear products"),
        (["autograd::engine::evaluate_function: _NormBackward"], "norms"),
        (["aten::add"], "loss, Python, the rest"),
    ],
)  # fmt: skip
def test_where_an_operation_belongs(names, part):
    assert step_profile.part_of(names) == part


def test_needed_products_by_hand():
    """One prompt of 3 with completions of 2 and 1: 6 tokens through 2 layers of 9,216 weights, 19 pairs that see, 3 at a head of 10,240."""
    tree = SimpleNamespace(
        prompt_ids=[1] * 3, branches=[SimpleNamespace(token_ids=[1] * 2), SimpleNamespace(token_ids=[1])]
    )
    found = step_profile.needed_flops(TINY, [[tree]], "sft")
    assert found == pytest.approx(
        {"linear products": 6 * 6 * 2 * 9216, "attention": 19 * 12 * 32 * 2, "head and logprobs": 6 * 3 * 10240}
    )
    assert "head and logprobs" not in step_profile.needed_flops(TINY, [[tree]], "reward")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_profile_accounts_for_all_time_and_leaves_nothing_behind(tmp_path, precision):
    before = TreeAttention.attend, Learner._gradient_norm
    rows = Rows(prompts=3, prompt=8, completions=2, completion=6, vocabulary=320)
    learner, batches = scaling.make_learner(rows, precision=precision, shape=TINY), scaling.make_trees(rows, num=2)
    assert learner.models.policy is not None
    backbone = learner.models.policy.backbone
    seconds, nodes, total = step_profile.profile_steps(learner, batches)
    assert learner.step_number == 2 and sum(seconds.values()) == pytest.approx(total) and total > 0
    for part in step_profile.PARTS:
        assert seconds[part] > 0, part
    assert set(seconds) == set(step_profile.PARTS) and nodes
    assert (TreeAttention.attend, Learner._gradient_norm) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())


def test_the_profile_of_the_fixed_work_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(step_profile, "make", lambda folder, _shape: tiny_work.make(folder, "tiny", device="cpu"))
    monkeypatch.setitem(step_profile.SHAPES, "S", TINY)
    results = tmp_path / "profile.json"
    assert step_profile.main(["--methods", "dpo", "--precisions", "fp32", "--steps", "2", "--place", str(tmp_path / "place"), "--results",
                              str(results), "--threads", str(torch.get_num_threads())]) == 0  # fmt: skip
    (row,) = json.loads(results.read_text())
    assert row["work"] == "offline profile dpo S fp32" and row["num_steps"] == 2
    assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert sum(row["parts"].values()) == pytest.approx(row["mean_step_s"], rel=1e-2)
    assert set(row["products_share_of_peak"]) == {"linear products", "attention", "head and logprobs"}
