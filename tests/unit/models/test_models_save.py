"""Saved policies load in plain transformers; checkpoints survive a kill at any moment; heads come back as they were."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny_models
from fairlead.core.errors import ModelError
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.checkpoint import load_checkpoint, save_checkpoint, save_policy, weights_name
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.text import Branch, Tree, pack_trees


def plain_logits(folder):
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return module(input_ids=torch.tensor([[1, 9, 8, 7, 30]])).logits


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_a_saved_policy_is_a_plain_model_folder(kind, tmp_path):
    model, tokenizer = tiny_models.load(kind), load_tokenizer(str(tiny_models.folder(kind)))
    save_policy(model, tokenizer, tmp_path)
    assert torch.equal(plain_logits(tmp_path), plain_logits(tiny_models.folder(kind)))
    config = json.loads((tmp_path / "config.json").read_text())
    assert "fairlead" not in json.dumps(config)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (
        again.chat_template == tokenizer.chat_template
        and again("once upon")["input_ids"] == tokenizer("once upon")["input_ids"]
    )
    assert load_policy(str(tmp_path)).hidden_size == model.hidden_size
    model.hidden(
        pack_trees([Tree(prompt_ids=np.array([1, 7]), branches=(Branch(token_ids=np.array([8])),))])
    )  # it can be used on


def test_a_saved_adapter_is_merged_in(tmp_path):
    model = add_lora(tiny_models.load("llama"), LoraSettings(rank=2, alpha=4.0), seed=0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.02)
    layout = pack_trees([Tree(prompt_ids=np.array([1, 9, 8]), branches=(Branch(token_ids=np.array([7, 30])),))])
    with torch.no_grad():
        before = model.logprobs(layout).logprobs
        save_policy(model, tiny_models.make_tokenizer(), tmp_path)
        after = load_policy(str(tmp_path)).logprobs(layout).logprobs
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    expected = plain_logits(tmp_path).log_softmax(-1)[0, [2, 3], [7, 30]]
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


def save(folder, step):
    save_checkpoint(folder, tensors={"w": torch.full((1000,), float(step))}, state={"step": step})


def load_step(folder):
    """The step of the checkpoint, which its tensors must agree with; None without a checkpoint."""
    found = load_checkpoint(folder)
    if found is None:
        return None
    assert torch.equal(found[0]["w"], torch.full((1000,), float(found[1]["step"])))
    return found[1]["step"]


def test_the_newest_checkpoint_replaces_the_last(tmp_path):
    folder = tmp_path / "work" / "checkpoint"
    assert load_step(folder) is None
    for step in (1, 2):
        save(folder, step)
        assert load_step(folder) == step
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def test_a_kill_between_the_two_renames_leaves_the_old_checkpoint(tmp_path):
    """At that moment the old one is called `.old` and the new one is still a draft; a second kill there loses nothing either."""
    folder = tmp_path / "checkpoint"
    save(folder, 1)
    folder.rename(tmp_path / "checkpoint.old")
    draft = tmp_path / ".checkpoint.abc"
    draft.mkdir()
    (draft / "tensors.safetensors").write_bytes(b"half")
    assert load_step(folder) == 1
    with pytest.raises(TypeError):
        save_checkpoint(folder, tensors={"w": torch.zeros(1)}, state={"step": object()})
    assert load_step(folder) == 1
    save(folder, 2)
    assert load_step(folder) == 2 and [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_the_only_checkpoint_stays_until_the_new_one_is_in_place(tmp_path):
    """A dangling link where the checkpoint should be makes the last rename fail."""
    folder = tmp_path / "checkpoint"
    save(tmp_path / "checkpoint.old", 1)
    folder.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="checkpoint"):
        save(folder, 2)
    assert load_step(folder) == 1


_SAVE_FOREVER = """
import sys, torch
from pathlib import Path
from fairlead.models.checkpoint import save_checkpoint
for step in range(1, 10**6):
    save_checkpoint(Path(sys.argv[1]), tensors={"w": torch.full((1000,), float(step))}, state={"step": step})
    print(step, flush=True)
"""


def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    with subprocess.Popen(
        [sys.executable, "-c", _SAVE_FOREVER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()
    step = load_step(folder)
    assert step is not None and step >= int(told[-1]) > 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of open files from /proc")
def test_a_checkpoint_is_on_disk_before_the_old_one_goes(tmp_path, monkeypatch):
    folder, synced, fsync = tmp_path / "checkpoint", [], os.fsync

    def record(handle):
        place = Path(f"/proc/self/fd/{handle}").resolve()
        synced.append((place.name.split(".")[0], (tmp_path / "checkpoint.old").exists()))
        fsync(handle)

    save(folder, 1)
    monkeypatch.setattr(os, "fsync", record)
    save(folder, 2)
    assert sorted(synced[:3]) == [
        ("", False),
        ("state", False),
        ("tensors", False),
    ]  # the draft's name begins with a dot
    assert synced[3:] == [(tmp_path.name, True)]


def test_a_damaged_checkpoint_says_so(tmp_path):
    folder = tmp_path / "checkpoint"
    save(folder, 1)
    (folder / "tensors.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError) as info:
        load_checkpoint(folder)
    assert "is damaged" in str(info.value) and "\n" not in str(info.value)


def test_the_name_of_weights_is_that_of_their_bytes(tmp_path):
    model, tokenizer = tiny_models.load("llama"), tiny_models.make_tokenizer()
    for name in ("a", "b"):
        save_policy(model, tokenizer, tmp_path / name)
    (tmp_path / "b" / "README.md").write_text("another place, another note", encoding="utf-8")
    assert weights_name(tmp_path / "a") == weights_name(tmp_path / "b")
    with torch.no_grad():
        model.module.get_submodule("model.norm").weight[0] += 1e-3
    save_policy(model, tokenizer, tmp_path / "c")
    assert weights_name(tmp_path / "c") != weights_name(tmp_path / "a")
