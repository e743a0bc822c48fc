"""`fairlead import-config`: realistic configurations of five tools (written for these tests) become recipes, and every key is accounted for."""

from pathlib import Path
from typing import Any

import pytest
from foreign_examples import CASES, translated
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.cli.foreign import TOOLS
from fairlead.cli.foreign.files import Unresolved, read_foreign, read_script
from fairlead.cli.foreign.translating import translate
from fairlead.cli.import_config import translate_file
from fairlead.core.errors import ConfigError, DataError, FairleadError
from fairlead.core.io import write_json
from fairlead.pipeline.recipe import load
from fairlead.policies.dpo import DpoConfig
from fairlead.policies.online_config import OnlineConfig

_SILENT = {  # translated keys whose value enters another key under the tool's word for it
    "axolotl-sft": {"adapter"}, "axolotl-dpo": {"rl"}, "trl-dpo": {"loss_type", "use_peft"}, "trl-ppo": {"num_mini_batches"}, "dschat-ppo": set(),
    "openrlhf-dpo": {"apply_chat_template"}, "openrlhf-ppo": {"rollout.n_samples_per_prompt", "data.apply_chat_template"},
    "llamafactory-simpo": {"stage", "pref_loss", "finetuning_type"}, "llamafactory-sft": {"stage"}, "trl-orpo": set(), "trl-simpo": {"loss_type"},
    "axolotl-kto": {"rl"}, "openrlhf-kto": set(),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_key_is_in_the_recipe_or_in_the_account(tmp_path: Path, case: str) -> None:
    """What is left is listed on the terminal and in the recipe; what is translated is named behind its value, or is a switch."""
    tool_name, name, _ = CASES[case]
    _, recipe, lines = translated(tmp_path, case)
    tool = TOOLS[tool_name]
    foreign = read_foreign(tmp_path / name, program=tool.program, takes_tables=tool.takes_tables)
    account = translate(tool, tool.kind(foreign, tmp_path / name), foreign, name="x")
    left = {key for key, _ in account.left}
    assert left <= set(foreign.keys)
    body, _, tail = recipe.partition("# Not translated:")
    for key in left:
        assert f" {key}=" in tail
        assert any(key in line for line in lines)
    for key in set(foreign.keys) - left:
        assert key in body or key in _SILENT[case], key
    assert lines[0].endswith(
        f"{len(foreign.keys) - len(left)} of {len(foreign.keys)} keys of {name} translated, {len(left)} not:"
    )
    assert lines[-1] == f"Next: fairlead plan {tmp_path / 'recipe.yaml'}"


def test_axolotl_sft(tmp_path: Path) -> None:
    recipe, text, lines = translated(tmp_path, "axolotl-sft")
    assert recipe.sft is not None
    training = recipe.sft.training
    assert (training.learning_rate, training.num_epochs, training.batch_size) == (2e-4, 3, 8)
    assert (training.schedule, training.final_share, training.beta2, training.weight_decay) == (
        "cosine",
        0.0,
        0.999,
        0.01,
    )
    assert training.lora is not None
    assert (training.lora.rank, training.lora.alpha, training.lora.target_modules) == (32, 16.0, r".*\.(q_proj|v_proj)")
    assert [(d.path, d.format) for d in recipe.sft.data] == [
        ("data/club.jsonl", "alpaca"),
        ("data/chats.jsonl", "sharegpt"),
    ]
    assert (recipe.text.template, recipe.text.max_length, recipe.sft.heldout_share) == ("chatml", 2048, 0.05)
    assert "  unknown to us: flux_capacitor" in lines
    assert any("lora_dropout=0.05 (adapters have no dropout)" in line for line in lines)
    assert any("warmup_steps=10 (warm-up is a share" in line for line in lines)
    assert any("org/chats is a hub data set" in line for line in lines)
    assert any("message_property_mappings not translated" in line for line in lines)
    assert "micro_batch_size (2) x gradient_accumulation_steps (4) x 1 device" in text


def test_axolotl_dpo(tmp_path: Path) -> None:
    recipe, _, _ = translated(tmp_path, "axolotl-dpo")
    policy = recipe.policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.beta, policy.training.warmup_share, policy.training.schedule) == (
        "dpo",
        0.05,
        0.1,
        "linear",
    )
    assert policy.training.lora is None
    assert recipe.preferences is not None
    assert (recipe.preferences.path, recipe.preferences.format) == ("data/pairs.jsonl", "ultrafeedback_binarized")


def test_trl_dpo(tmp_path: Path) -> None:
    recipe, _, _ = translated(tmp_path, "trl-dpo")
    policy = recipe.policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.flip_rate, policy.beta, recipe.seed) == ("robust", 0.15, 0.2, 7)
    assert (policy.training.batch_size, policy.training.num_epochs, policy.training.beta2) == (32, 2, 0.98)
    assert policy.training.lora is not None
    assert (policy.training.lora.rank, policy.training.lora.alpha, policy.training.lora.target_modules) == (
        8,
        16.0,
        "all-linear",
    )


def test_trl_ppo(tmp_path: Path) -> None:
    """4 a device x 2 accumulated x 4 devices = 32 a step, 2 of these a round, 10,000 / 64 = 157 rounds."""
    recipe, _, lines = translated(tmp_path, "trl-ppo")
    policy = recipe.policies["ppo"]
    assert isinstance(policy, OnlineConfig)
    assert (policy.minibatch_size, policy.batch_size, policy.num_iterations, policy.num_epochs) == (32, 64, 157, 2)
    assert (policy.kl.kl_coef, policy.kl.target, recipe.model) == (0.05, None, "org/base-1b-sft")
    assert recipe.prompts is not None
    assert recipe.prompts.sources[0].hub == "org/prompts"
    assert any("no counterpart yet: reward_model_path=org/reward" in line for line in lines)
    assert any("not needed here" in line and "output_dir" in line for line in lines)


def test_dschat_ppo(tmp_path: Path) -> None:
    recipe, text, lines = translated(tmp_path, "dschat-ppo")
    policy = recipe.policies["ppo"]
    assert isinstance(policy, OnlineConfig)
    assert (policy.batch_size, policy.minibatch_size, policy.num_epochs, policy.max_new_tokens) == (32, 16, 1, 200)
    assert (recipe.text.max_length, recipe.seed, policy.training.learning_rate) == (500, 1234, 9.65e-6)
    assert policy.training.lora is not None
    assert (policy.training.lora.rank, policy.training.lora.target_modules) == (128, r".*decoder\.layers\..*")
    assert any("actor_model_name_or_path=$ACTOR_MODEL_PATH" in line for line in lines)
    assert "unsup_coef=27.8 (no pretraining mix (PPO-ptx))" in text
    assert any("names no model" in line for line in lines)


def test_openrlhf_dpo(tmp_path: Path) -> None:
    recipe, _, lines = translated(tmp_path, "openrlhf-dpo")
    policy = recipe.policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.flip_rate, policy.training.batch_size) == ("cdpo", 0.1, 256)
    assert (policy.training.beta2, policy.training.warmup_share, policy.training.final_share) == (0.98, 0.03, 0.1)
    assert recipe.preferences is not None
    assert recipe.preferences.path == "a.jsonl"
    assert any("not taken: b.jsonl" in line for line in lines)


def test_openrlhf_ppo_with_dotted_names(tmp_path: Path) -> None:
    """256 prompts x 2 = 512 completions a round; 10,000 prompts / 256 = 40 rounds."""
    recipe, _, lines = translated(tmp_path, "openrlhf-ppo")
    policy = recipe.policies["ppo"]
    assert isinstance(policy, OnlineConfig)
    assert (policy.batch_size, policy.minibatch_size, policy.num_iterations) == (512, 128, 40)
    assert (policy.clip_low, policy.clip_high, policy.gamma, policy.lam, policy.max_new_tokens) == (
        0.2,
        0.28,
        1.0,
        0.95,
        512,
    )
    assert (recipe.model, recipe.text.max_length, policy.training.learning_rate, policy.kl.kl_coef) == (
        "org/sft-8b",
        2048,
        5e-7,
        0.01,
    )
    assert any("critic.adam.lr=9e-06 (policy and value model share" in line for line in lines)


@pytest.mark.parametrize(
    ("tool", "text", "section", "expected"),
    [
        (
            "trl",
            "model_name_or_path: a/b\ncenter_rewards_coefficient: 0.01\nnum_train_epochs: 1",
            "rewards",
            {"center_coef": 0.01},
        ),
        (
            "axolotl",
            "base_model: a/b\nreward_model: true\nmicro_batch_size: 2\nadapter: lora\nlora_r: 8",
            "rewards",
            {},
        ),
        ("openrlhf", "python -m openrlhf.cli.train_rm --pretrain a/b --train_batch_size 64", "rewards", {}),
        (
            "openrlhf",
            "python -m openrlhf.cli.train_sft --pretrain a/b --learning_rate 1e-5 --dataset x.jsonl",
            "sft",
            {},
        ),
        ("dschat", "deepspeed main.py --model_name_or_path a/b --max_seq_len 512", "sft", {}),
        ("dschat", "deepspeed step2_reward_model_finetuning/main.py --model_name_or_path a/b", "rewards", {}),
        ("trl", "model_name_or_path: a/b\nlearning_rate: 1e-5", "sft", {}),
    ],
)
def test_each_kind_of_run_is_recognised(
    tmp_path: Path, tool: str, text: str, section: str, expected: dict[str, Any]
) -> None:
    file = tmp_path / ("c.yaml" if tool in ("trl", "axolotl") else "c.sh")
    file.write_text(text)
    translate_file(tool, file, tmp_path / "r.yaml", force=False)
    found = getattr(load(tmp_path / "r.yaml"), section)
    assert found is not None
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("tool", "name", "text", "message"),
    [
        ("axolotl", "c.sh", "x", "is not a configuration of this tool"),
        ("openrlhf", "c.yaml", "x: 1", "is not a configuration of this tool"),
        ("axolotl", "c.yaml", "- 1\n- 2", "is not a mapping"),
        ("axolotl", "c.yaml", "a: [", "is not YAML"),
        ("trl", "c.json", "{", "is not JSON"),
        ("trl", "c.yaml", "", "is not a mapping"),
        ("trl", "c.yaml", "{}", "holds no setting"),
        ("openrlhf", "c.sh", "echo hello", "holds no setting"),
        ("openrlhf", "c.sh", "--learning_rate 1", "does not say what it trains"),
        ("openrlhf", "c.sh", "python -m openrlhf.cli.train_prm --beta 1", "not translated yet"),
        (
            "openrlhf",
            "c.sh",
            "python -m openrlhf.cli.train_ppo_ray --algo.advantage.estimator group_norm",
            "not translated yet",
        ),
        (
            "openrlhf",
            "c.sh",
            "a openrlhf.cli.train_dpo --x 1\nb openrlhf.cli.train_sft --x 1",
            "training commands are in it",
        ),
        ("openrlhf", "c.sh", "a openrlhf.cli.train_dpo --x 'open", "cannot be read as a command"),
        ("axolotl", "c.yaml", "rl: grpo\nbase_model: a/b", "rl=grpo is a method that is not translated yet"),
        ("axolotl", "c.yaml", "rl: [dpo]\nbase_model: a/b", "not translated yet"),
        ("trl", "c.yaml", "num_generations: 8", "not translated yet"),
        ("trl", "c.sh", "trl grpo --beta 0", "not translated yet"),
        ("trl", "c.yaml", "beta: 0.1\nloss_type: bco_pair", "loss_type=bco_pair"),
        ("trl", "c.yaml", "beta: 0.1\nloss_type: aot", "unpaired in older ones"),
        ("trl", "kto.yaml", "beta: 0.1\nloss_type: apo_zero_unpaired", "loss_type=apo_zero_unpaired"),
        ("trl", "cpo.yaml", "beta: 0.1\nloss_type: hinge", "Take DPO with that link"),
        ("llamafactory", "c.yaml", "stage: pt\nmodel_name_or_path: a/b", "stage=pt"),
        ("llamafactory", "c.yaml", "stage: dpo\npref_loss: kto_pair", "pref_loss=kto_pair"),
        ("swift", "c.yaml", "a: 1", "is not a known tool"),
    ],
)
def test_wrong_files_are_one_line_and_write_nothing(
    tmp_path: Path, tool: str, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FairleadError, match=message) as caught:
        translate_file(tool, tmp_path / name, tmp_path / "r.yaml", force=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.yaml").exists()


def test_missing_binary_and_existing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        translate_file("trl", tmp_path / "none.yaml", tmp_path / "r.yaml", force=False)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        translate_file("trl", tmp_path / "b.yaml", tmp_path / "r.yaml", force=False)
    (tmp_path / "c.yaml").write_text("model_name_or_path: a/b")
    (tmp_path / "r.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        translate_file("trl", tmp_path / "c.yaml", tmp_path / "r.yaml", force=False)
    assert (tmp_path / "r.yaml").read_text() == "mine"
    translate_file("trl", tmp_path / "c.yaml", tmp_path / "r.yaml", force=True)
    assert load(tmp_path / "r.yaml").model == "a/b"


def test_values_that_the_recipe_refuses_are_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "dpo.yaml").write_text(
        "model_name_or_path: a/b\nbeta: -1\nlearning_rate: fast\nnum_train_epochs: 0.5\nwarmup_ratio: 3\nmax_length: 2\n"
    )
    lines = "\n".join(translate_file("trl", tmp_path / "dpo.yaml", tmp_path / "r.yaml", force=False))
    for key in (
        "beta=-1 (refused",
        "learning_rate=fast (a number",
        "num_train_epochs=0.5 (a whole",
        "warmup_ratio=3 (refused",
        "max_length=2 (refused",
    ):
        assert f"no counterpart yet: {key}" in lines, key


def test_nothing_in_a_script_is_executed(tmp_path: Path) -> None:
    script = f"X=$(touch {tmp_path}/a)\nopenrlhf.cli.train_dpo --pretrain `touch {tmp_path}/b` --beta $(touch {tmp_path}/c) --max_len 512\n"
    (tmp_path / "c.sh").write_text(script)
    translate_file("openrlhf", tmp_path / "c.sh", tmp_path / "r.yaml", force=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.sh", "r.yaml"]


def test_variables_are_filled_in_only_from_the_script() -> None:
    program = TOOLS["openrlhf"].program
    assert program is not None
    text = 'A=1e-5\nexport B="${A}"\nL=$L$L\nopenrlhf.cli.train_dpo --lr $B --n ${N:-3} --path ${HOME} --loop $L --flag --neg -1 --eq=x=y'
    assert read_script(text, program=program, where="t").keys == {
        "lr": 1e-5, "n": 3, "path": Unresolved("${HOME}"), "loop": Unresolved("$L$L"), "flag": True, "neg": -1, "eq": "x=y",
    }  # fmt: skip


def test_variables_that_double_do_not_explode() -> None:
    program = TOOLS["openrlhf"].program
    assert program is not None
    text = "V0=xx\n" + "\n".join(f"V{i}=$V{i - 1}$V{i - 1}" for i in range(1, 60)) + "\nopenrlhf.cli.train_dpo --a $V59"
    assert read_script(text, program=program, where="t").keys.keys() == {"a"}


@given(text=st.text(alphabet="ab-=$\\\"'{}<>|&; \n#1.e", max_size=120))
@settings(deadline=None, max_examples=25)
def test_any_script_is_read_or_refused_in_one_line(text: str) -> None:
    program = TOOLS["openrlhf"].program
    assert program is not None
    try:
        read_script(f"openrlhf.cli.train_dpo {text}", program=program, where="t")
    except ConfigError as error:
        assert "\n" not in str(error)


_ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5000),
    st.floats(-2, 2),
    st.text(max_size=5),
    st.lists(st.floats(0, 1), max_size=3),
)


@given(
    values=st.dictionaries(
        st.sampled_from(sorted({*TOOLS["trl"].meanings, *TOOLS["axolotl"].meanings})), _ANY, min_size=1, max_size=12
    ),
    tool=st.sampled_from(["trl", "axolotl"]),
)
@settings(deadline=None, max_examples=25)
def test_any_values_give_a_recipe_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], tool: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write_json(folder / "c.json", values)
    try:
        translate_file(tool, folder / "c.json", folder / "r.yaml", force=False)
    except FairleadError as error:
        assert "\n" not in str(error)
        assert not (folder / "r.yaml").exists()
    else:
        assert load(folder / "r.yaml")


def test_no_name_is_both_translated_and_explained_away() -> None:
    """A key with a meaning never reaches the table of reasons, so an entry there would be dead."""
    for tool in TOOLS.values():
        assert not set(tool.meanings) & set(tool.left), tool.name


def test_a_reward_model_may_have_adapters(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "base_model: a/b\nreward_model: true\nadapter: lora\nlora_r: 8\nlora_alpha: 4\nlora_target_linear: true"
    )
    translate_file("axolotl", tmp_path / "c.yaml", tmp_path / "r.yaml", force=False)
    rewards = load(tmp_path / "r.yaml").rewards
    assert rewards is not None
    assert rewards.training.lora is not None
    assert (rewards.training.lora.rank, rewards.training.lora.alpha, rewards.training.lora.target_modules) == (
        8,
        4.0,
        "all-linear",
    )


@pytest.mark.parametrize(
    ("keys", "algorithm", "flip_rate"),
    [
        ("loss_type: sigmoid", "dpo", 0.0),
        ("loss_type: sigmoid\nlabel_smoothing: 0.1", "cdpo", 0.1),
        ("loss_type: robust\nlabel_smoothing: 0.0", "dpo", 0.0),
        ("loss_type: ipo\nlabel_smoothing: 0.2", "ipo", 0.0),
        ("loss_type: robust\nlabel_smoothing: 0.7", "dpo", 0.0),
    ],
)
def test_the_link_follows_from_loss_and_smoothing(tmp_path: Path, keys: str, algorithm: str, flip_rate: float) -> None:
    """A robust loss without smoothing is plain DPO; a rate of a half or more leaves nothing to learn and is refused."""
    (tmp_path / "dpo.yaml").write_text(f"model_name_or_path: a/b\nbeta: 0.1\n{keys}")
    lines = translate_file("trl", tmp_path / "dpo.yaml", tmp_path / "r.yaml", force=False)
    policy = load(tmp_path / "r.yaml").policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.flip_rate) == (algorithm, flip_rate)
    assert any("label_smoothing=0.7 (refused" in line for line in lines) == ("0.7" in keys)


def test_the_file_of_another_tool_is_refused_with_the_name_of_that_tool(tmp_path: Path) -> None:
    path = tmp_path / "dpo.yaml"
    path.write_text(
        "model_name_or_path: org/m\ndataset_name: org/d\nper_device_train_batch_size: 2\nnum_train_epochs: 1\nloss_type: ipo\n"
        "learning_rate: 1e-6\nuse_peft: true\n"
    )
    with pytest.raises(ConfigError, match=r"has 7 keys, of which axolotl has 1 and trl has 7.*import-config trl"):
        translate_file("axolotl", path, tmp_path / "recipe.yaml", force=False)
    assert not (tmp_path / "recipe.yaml").exists()
    assert translate_file("trl", path, tmp_path / "recipe.yaml", force=False)[0].startswith("trl, DPO: 7 of 7 keys")
