"""A calibration round as a file."""

import numpy as np

from fairlead.core.io import dump_json, write_text
from fairlead.preferences.shared_rounds import gate_of


def _round(path, accuracies, num_items=60):
    rng = np.random.default_rng(3)
    lines = ["item,rater,label"]
    truth = rng.integers(0, 2, num_items)
    for name, accuracy in accuracies.items():
        lines += [
            f"p{i},{name},{'ab'[truth[i] if rng.random() < accuracy else 1 - truth[i]]}" for i in range(num_items)
        ]
    write_text(path, "\n".join(lines) + "\n")
    return path


def test_good_raters_pass_and_the_one_who_deviates_does_not(tmp_path):
    summary = gate_of(_round(tmp_path / "v.csv", {"ann": 0.95, "bob": 0.95, "cem": 0.2, "dan": 0.95, "eve": 0.95}))
    assert summary.facts["decisions"] == {"ann": "pass", "bob": "pass", "cem": "fail", "dan": "pass", "eve": "pass"}
    assert summary.headline.startswith("4 of 5 raters pass; cem deviates from the rest")
    curve = next(t for t in summary.tables if t.title.startswith("What the gate does"))
    assert [round(row[1], 3) for row in curve.rows if row[0] in (0.6, 0.75)] == [0.042, 0.842]
    dump_json(summary.to_dict())


def test_a_vague_guideline_is_said(tmp_path):
    summary = gate_of(_round(tmp_path / "v.csv", dict.fromkeys("abcd", 0.5)))
    assert summary.facts["kind"] == "vague_guideline"
    assert "amend the guideline" in summary.headline
