"""Model folders that cannot be used: each is refused in one line that says which file and what to do."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from fairlead.core.errors import ConfigError, ModelError
from fairlead.models.device import choose_device
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.models.locate import BUNDLED
from fairlead.models.memory import PeakMemory, keep_freed_memory
from fairlead.text import Branch, Tree, pack_trees


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(tiny_models.folder("llama"), tmp_path / "model"))


def refusal(model, load=load_policy):
    with pytest.raises(ModelError) as info:
        load(str(model))
    message = str(info.value)
    assert "\n" not in message and "expected" in message and "Error(" not in message and "Traceback" not in message
    return message


def split(folder, *, missing=()):
    """Cut the weights into two shards with an index; leave some out."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        if shard not in missing:
            save_file({n: tensors[n] for n in part}, folder / shard, metadata={"format": "pt"})
    weight_map = {n: shard for shard, part in shards.items() for n in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def test_shards_load(folder):
    split(folder)
    parts = zip(
        load_policy(str(folder)).module.parameters(), tiny_models.load("llama").module.parameters(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in parts)


def test_missing_shards_are_named(folder):
    split(folder, missing=["model-00002-of-00002.safetensors"])
    message = refusal(folder)
    assert "lacks 1 of 2 weight shards" in message and "model-00002-of-00002.safetensors" in message


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(folder, text):
    split(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json is damaged" in refusal(folder)


def test_pickles_are_never_loaded(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refusal(folder)
    assert "pytorch_model.bin" in message and "pickle" in message and "safetensors" in message


def test_a_folder_without_weights_or_config_is_named(folder):
    (folder / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(folder)
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


@pytest.mark.parametrize("size", [0, 5, 2000])
def test_damaged_weights_are_refused(folder, size):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "model.safetensors is damaged" in refusal(folder)


def test_a_damaged_shard_is_named(folder):
    split(folder)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    assert "model-00002-of-00002.safetensors is damaged" in refusal(folder)


def test_a_pointer_of_git_lfs_is_named(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_named(folder, value, dtype):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(folder, lambda name: load_policy(name, dtype=dtype))
    assert "holds NaN or infinity in model.layers.1.mlp.up_proj.weight" in message


def test_adapters_are_refused_with_the_way_to_merge_them(folder):
    """Beside a whole model too: transformers would attach it, and what trains would not be what was named."""
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert "an adapter (of org/base)" in refusal(folder)
    assert "merge_and_unload" in refusal(folder, load_tokenizer)


def test_missing_weights_are_refused_not_initialised(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights (first: model.layers.1.mlp.up_proj.weight)" in refusal(folder)


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    assert "holds model.layers.0.mlp.down_proj.weight as [32, 48]; expected [32, 40], by its config.json" in refusal(
        folder
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "config.json is damaged"),
        ("[]", "config.json is damaged"),
        ('{"model_type": "no-such-thing"}', "no-such-thing"),
    ],
)
def test_damaged_configs_are_refused(folder, text, words):
    (folder / "config.json").write_text(text)
    assert words in refusal(folder)


def test_code_of_a_model_is_never_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "my-own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "brings code of its own (auto_map), which is never run" in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_encoders_with_a_decoder_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bart", "is_encoder_decoder": True}))
    assert "is an encoder with a decoder" in refusal(folder)


def test_weights_that_the_architecture_lacks_are_refused(folder):
    """transformers would load the first layer and drop the second without a word."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    message = refusal(folder)
    assert "holds 9 weights that its architecture has no place for (first: model.layers.1." in message


def test_a_head_that_would_be_dropped_is_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "v_head.weight": torch.ones(1, 32)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert "holds 1 weights that its architecture has no place for (first: v_head.weight)" in refusal(folder)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"])
def test_buffers_and_a_tied_head_in_a_file_are_no_weights_to_lose(tmp_path, name):
    folder = Path(shutil.copytree(tiny_models.folder("qwen2"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"].clone()
    save_file({**tensors, name: embeddings}, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load_policy(str(folder)).output_head().weight, embeddings)


def test_a_folder_without_tokenizer_is_refused(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    assert "has no tokenizer.json" in refusal(folder, load_tokenizer)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", '{"half'])
def test_a_damaged_tokenizer_is_named(folder, name, text):
    (folder / name).write_text(text)
    assert f"{name} is damaged" in refusal(folder, load_tokenizer)


def test_a_tokenizer_without_vocabulary_is_named(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json is damaged" in refusal(folder, load_tokenizer)


def test_paths_that_do_not_exist_are_refused(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "none")
    assert "is not a folder" in refusal("./none")


def test_weights_come_in_the_dtype_that_was_asked_for():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert {p.dtype for p in tiny_models.load("llama", dtype=dtype).module.parameters()} == {dtype}
    assert not tiny_models.load("gpt2").module.training


def test_the_bundled_model_works():
    model, tokenizer = load_policy(BUNDLED), load_tokenizer(BUNDLED)
    ids = np.array(tokenizer("what is it?", add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        found = model.logprobs(pack_trees([Tree(prompt_ids=ids[:1], branches=(Branch(token_ids=ids[1:]),))]))
    assert torch.isfinite(found.logprobs).all() and len(found.logprobs) == len(ids) - 1
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_devices_that_are_not_there_are_refused():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="is not available on this machine"):
        choose_device("abacus")


def test_memory_settings_are_accepted_on_linux():
    assert keep_freed_memory() == (os.uname().sysname == "Linux")


def test_the_peak_of_a_stage_is_not_that_of_the_stage_before():
    memory = PeakMemory()
    memory.start_stage()
    if not memory.is_of_stage:
        pytest.skip("the kernel does not forget a peak")
    large = torch.ones(64 * 2**20)  # 256 MB
    first = memory.of_stage
    del large
    memory.start_stage()
    second = memory.of_stage
    assert first - second > 200
    assert memory.of_run >= first
