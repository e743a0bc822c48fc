"""What the keys of Axolotl, TRL, DeepSpeed-Chat and OpenRLHF mean: a table of names a tool, and what has no place in a recipe.

Left: the tool's key. Right: the meaning that import_config.py turns into recipe keys, or why it is left out. Names with `*` are
patterns. Written against Axolotl 0.13, TRL 0.2x and 1.x, DeepSpeedExamples (chat) and OpenRLHF 0.5 (flat) to 0.10 (dotted flags).
"""

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fairlead.cli.foreign_files import Foreign
from fairlead.core.errors import ConfigError, explain

Kind = Literal["sft", "rewards", "dpo", "ppo"]
Category = Literal["unknown to us", "not needed here", "no counterpart yet"]


@dataclass(frozen=True, slots=True)
class Left:
    """Why a key is not translated."""

    category: Category
    reason: str


Leaving = Left | Callable[[Any], Left]


def needless(reason: str) -> Left:
    """Fairlead does it anyway, or elsewhere."""
    return Left("not needed here", reason)


def lacking(reason: str) -> Left:
    """Fairlead cannot do it."""
    return Left("no counterpart yet", reason)


def off_or(reason: str) -> Callable[[Any], Left]:
    """Lacking when it is switched on; an empty, false or zero value asks for nothing."""
    return lambda value: lacking(reason) if value else needless("switched off there, absent here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool's vocabulary."""

    name: str
    program: re.Pattern[str] | None
    """Finds the trainer on a command line; None where scripts are not its configurations."""
    takes_tables: bool
    kind: Callable[[Foreign, Path], Kind]
    meanings: Mapping[str, str]
    by_kind: Mapping[Kind, Mapping[str, str]] = field(default_factory=dict[Kind, Mapping[str, str]])
    """Meanings that differ in one kind of run."""
    left: Mapping[str, Leaving]
    defaults: Mapping[Kind | Literal["all"], Mapping[str, Any]]
    """Meaning -> the tool's own default, where Fairlead's differs and results would."""

    def meaning(self, key: str, kind: Kind) -> str:
        """Empty for a key without one."""
        return self.by_kind.get(kind, {}).get(key) or self.meanings.get(key, "")

    def leaving(self, key: str, value: Any) -> Left:
        """Why `key` is left out."""
        name = key if key in self.left else next((p for p in self.left if "*" in p and fnmatch.fnmatchcase(key, p)), "")
        if not name:
            return Left("unknown to us", "not in our table of this tool")
        entry = self.left[name]
        return entry if isinstance(entry, Left) else entry(value)

    def num_known(self, keys: Mapping[str, Any], kind: Kind) -> int:
        """How many of the keys are this tool's."""
        return sum(
            bool(self.meaning(k, kind)) or self.leaving(k, v).category != "unknown to us" for k, v in keys.items()
        )


_MACHINE = needless("a matter of the machine; changes no result")
_SAVING = needless("saving, logging and resuming are the store's")
_EVALUATION = needless("the evaluation is declared in evals")
_MEMORY = needless("max_tokens_per_microbatch bounds memory")
_ADAPTER_DROPOUT = off_or("adapters have no dropout")
_QUANTISED = off_or("no quantised weights: adapters on full-precision weights instead")
_PRETRAINING = off_or("no pretraining mix (PPO-ptx)")
_CRITIC_RATE = lacking("policy and value model share one optimiser run")
_REWARD_MODEL = lacking("a recipe trains its reward model from preferences; an existing one cannot be named")
_COLUMNS = needless("the format of the file says which columns; see docs/formats.md")
_MIXING = lacking("files are used whole, once an epoch")
_TAKE = off_or("the whole file is used; cut it beforehand")


def _optimiser(value: Any) -> Left:
    return needless("AdamW, as here") if "adam" in str(value).lower() else lacking("AdamW is the only optimiser")


def refuse(tool: str, key: str, value: Any) -> ConfigError:
    """The error for a method that no recipe can express."""
    return ConfigError(explain(f"{tool}: {key}", value, "is a method without a counterpart yet",
    expected="SFT, a reward model, DPO (dpo, ipo, robust) or PPO",
                               remedy="Choose one of them by `fairlead init`"))  # fmt: skip


def _axolotl_kind(foreign: Foreign, _path: Path) -> Kind:
    method = foreign.keys.get("rl")
    if method in (None, False, ""):
        return "rewards" if foreign.keys.get("reward_model") else "sft"
    if method not in (True, "dpo", "ipo"):
        raise refuse("axolotl", "rl", method)
    return "dpo"


_TRL_PROGRAMS: Mapping[str, Kind] = {
    "sft": "sft",
    "dpo": "dpo",
    "reward": "rewards",
    "reward_modeling": "rewards",
    "ppo": "ppo",
    "ppo_tldr": "ppo",
}
_TRL_SIGNS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("kl_coef", "init_kl_coef", "num_ppo_epochs", "ppo_epochs", "cliprange", "reward_model_path"), "ppo"),
    (("center_rewards_coefficient",), "rewards"),
    (("beta", "precompute_ref_log_probs", "rpo_alpha", "ref_model_init_kwargs", "label_smoothing"), "dpo"),
)


def _trl_kind(foreign: Foreign, path: Path) -> Kind:
    for sign in ("num_generations", "desirable_weight", "rloo_k", "cpo_alpha"):
        if sign in foreign.keys:
            raise refuse("trl", sign, foreign.keys[sign])
    if foreign.program:
        if foreign.program not in _TRL_PROGRAMS:
            raise refuse("trl", "script", foreign.program)
        return _TRL_PROGRAMS[foreign.program]
    found: list[Kind] = [kind for names, kind in _TRL_SIGNS if any(name in foreign.keys for name in names)]
    named: list[Kind] = [kind for word, kind in _TRL_PROGRAMS.items() if word in path.stem.lower()]
    return (found or named or ["sft"])[0]


def _dschat_kind(foreign: Foreign, path: Path) -> Kind:
    steps: Mapping[str, Kind] = {"1": "sft", "2": "rewards", "3": "ppo"}
    step = re.search(r"step([123])", foreign.program) or re.search(r"step([123])", str(path))
    if step:
        return steps[step[1]]
    if "actor_model_name_or_path" in foreign.keys:
        return "ppo"
    return "rewards" if "num_padding_at_beginning" in foreign.keys else "sft"


def _openrlhf_kind(foreign: Foreign, path: Path) -> Kind:
    programs: dict[str, Kind] = {
        "train_sft": "sft",
        "train_rm": "rewards",
        "train_dpo": "dpo",
        "train_ppo": "ppo",
        "train_ppo_ray": "ppo",
    }
    if foreign.program and foreign.program not in programs:
        raise refuse("openrlhf", "trainer", foreign.program)
    estimator = foreign.keys.get("advantage_estimator", foreign.keys.get("algo.advantage.estimator", "gae"))
    if estimator != "gae":
        raise refuse("openrlhf", "advantage_estimator", estimator)
    if foreign.program:
        return programs[foreign.program]
    if {"init_kl_coef", "reward_pretrain", "algo.kl.init_coef", "rollout.batch_size", "rollout_batch_size"} & set(
        foreign.keys
    ):
        return "ppo"
    if {"beta", "ipo", "ref_pretrain"} & set(foreign.keys):
        return "dpo"
    raise ConfigError(explain(path, None, "does not say what it trains",
    expected="a line with openrlhf.cli.train_sft, train_rm, train_dpo or train_ppo_ray",
                              remedy="Keep the whole command in the file"))  # fmt: skip


# Of transformers' Trainer, under Axolotl and TRL: rates decay to 0, Adam's second memory is longer than ours.
_HF_DEFAULTS = {"beta2": 0.999, "schedule": "linear", "warmup_share": 0.0}
_HF_MEANINGS = {
    "seed": "seed", "learning_rate": "learning_rate", "warmup_ratio": "warmup_share", "weight_decay": "weight_decay",
    "adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "adam_eps", "max_grad_norm": "max_grad_norm",
    "gradient_accumulation_steps": "accumulation", "lora_r": "lora_rank", "lora_alpha": "lora_alpha", "lora_target_modules": "lora_targets",
    "warmup_steps": "warmup_steps", "max_steps": "max_steps", "center_rewards_coefficient": "center_coef", "beta": "beta",
    "label_smoothing": "label_smoothing",
}  # fmt: skip
_HF_LEFT: dict[str, Leaving] = {
    "output_dir": _SAVING, "overwrite_output_dir": _SAVING, "save_*": _SAVING, "logging_*": _SAVING, "report_to": _SAVING, "run_name": _SAVING,
    "push_to_hub": _SAVING, "hub_*": _SAVING, "resume_from_checkpoint": _SAVING, "wandb_*": _SAVING, "mlflow_*": _SAVING, "log_level": _SAVING,
    "load_best_model_at_end": needless("SFT keeps its best step"), "metric_for_best_model": needless("SFT keeps its best step"),
    "eval_*": _EVALUATION, "evaluation_strategy": _EVALUATION, "do_eval": _EVALUATION, "do_train": _EVALUATION,
    "per_device_eval_batch_size": _MEMORY,
    "bf16": _MACHINE, "fp16": _MACHINE, "tf32": _MACHINE, "torch_dtype": _MACHINE, "dtype": _MACHINE, "attn_implementation": _MACHINE,
    "deepspeed": _MACHINE, "fsdp*": _MACHINE, "ddp*": _MACHINE, "local_rank": _MACHINE, "dataloader_*": _MACHINE, "torch_compile*": _MACHINE,
    "dataset_num_proc": _MACHINE, "use_liger*": _MACHINE, "gradient_checkpointing*": _MEMORY, "optim": _optimiser, "optimizer": _optimiser,
    "load_in_8bit": _QUANTISED, "load_in_4bit": _QUANTISED, "lora_dropout": _ADAPTER_DROPOUT,
    "lora_modules_to_save": off_or("only linear layers get adapters; nothing else is trained beside them"),
    "neftune_noise_alpha": off_or("no embedding noise"),
    "trust_remote_code": off_or("code from a model folder is never run"), "remove_unused_columns": _COLUMNS,
    "no_remove_unused_columns": _COLUMNS, "group_by_length": _MEMORY,
    "trl": needless("settings of another trainer"),
}  # fmt: skip

AXOLOTL = Tool(
    name="axolotl", program=None, takes_tables=True, kind=_axolotl_kind,
    meanings={
        **_HF_MEANINGS, "base_model": "model", "num_epochs": "epochs", "micro_batch_size": "device_batch", "lr_scheduler": "schedule",
        "cosine_min_lr_ratio": "final_share", "sequence_len": "max_length", "chat_template": "template", "datasets": "datasets",
        "val_set_size": "heldout", "rl": "method", "rl_beta": "beta", "dpo_beta": "beta", "dpo_label_smoothing": "label_smoothing",
        "adapter": "adapter", "lora_target_linear": "lora_linear", "early_stopping_patience": "patience", "reward_model": "is_reward",
        "chat_template_jinja": "inline_template",
    },
    left={
        **_HF_LEFT, "model_type": _MACHINE, "tokenizer_type": _MACHINE, "base_model_config": _MACHINE, "tokenizer_config": _MACHINE,
        "is_*_derived_model": _MACHINE, "strict": _MACHINE, "flash_*": _MACHINE, "sdp_attention": _MACHINE, "xformers_attention": _MACHINE,
        "s2_attention": _MACHINE, "dataset_prepared_path": _MACHINE, "dataset_processes": _MACHINE, "plugins": _MACHINE, "liger_*": _MACHINE,
        "sample_packing*": _MEMORY, "eval_sample_packing": _MEMORY, "pad_to_sequence_len": _MEMORY, "pad_to_max_length": _MEMORY,
        "saves_per_epoch": _SAVING, "evals_per_epoch": _EVALUATION, "auto_resume_from_checkpoints": _SAVING, "debug": _SAVING,
        "early_stopping*": _SAVING,
        "train_on_inputs": off_or("only replies are trained, never prompts"), "lora_fan_in_fan_out": off_or("set by the adapter library"),
        "lora_model_dir": off_or("an adapter cannot be continued; merge it into the model first"), "peft*": off_or("plain LoRA only"),
        "special_tokens": off_or("the tokenizer is taken as it is; change it in the model's folder"),
        "tokens": off_or("the tokenizer is taken as it is; change it in the model's folder"),
        "test_datasets": off_or("held-out rows come from the same files"),
        "unfrozen_parameters": off_or("all weights, or adapters"),
        "shuffle_merged_datasets": needless("rows are shuffled by the seed"), "dpo_use_weighting": off_or("no weighting of pairs"),
        "rpo_alpha": off_or("no likelihood term in DPO"),
    },
    defaults={"all": {**_HF_DEFAULTS, "schedule": "cosine"}, "dpo": {"beta": 0.1}},
)  # fmt: skip

TRL = Tool(
    name="trl", takes_tables=True, kind=_trl_kind,
    program=re.compile(r"(?:\btrl\s+|trl[./]scripts[./]|scripts/(?:\w+/)*)(sft|dpo|reward_modeling|reward|ppo_tldr|ppo|kto|grpo|rloo|orpo|cpo|online_dpo|xpo|nash_md|gkd)(?:\.py)?\b"),
    meanings={
        **_HF_MEANINGS, "model_name_or_path": "model", "sft_model_path": "sft_model", "num_train_epochs": "epochs",
        "per_device_train_batch_size": "device_batch", "lr_scheduler_type": "schedule", "use_peft": "adapter", "loss_type": "loss",
        "max_length": "max_length", "max_seq_length": "max_length", "dataset_name": "datasets", "chat_template_path": "template",
        "kl_coef": "kl_coef", "init_kl_coef": "kl_coef", "target": "kl_target", "horizon": "kl_horizon", "cliprange": "clip",
        "cliprange_value": "value_clip", "vf_coef": "value_coef", "gamma": "gamma", "lam": "lam", "num_ppo_epochs": "ppo_epochs",
        "ppo_epochs": "ppo_epochs", "num_mini_batches": "num_minibatches", "total_episodes": "episodes", "response_length": "max_new",
        "max_new_tokens": "max_new", "temperature": "temperature", "missing_eos_penalty": "missing_eos_penalty", "batch_size": "rollout_batch",
        "mini_batch_size": "device_minibatch", "steps": "episodes", "score_clip": "score_clip", "max_prompt_length": "max_prompt",
        "label_smoothing_factor": "sft_smoothing",
    },
    by_kind={"ppo": {"max_length": "max_length"}},
    left={
        **_HF_LEFT, "eos_token": lacking("the tokenizer is taken as it is; change it in the model's folder"),
        "pad_token": lacking("the tokenizer is taken as it is; change it in the model's folder"), "dataset_streaming": _MACHINE,
        "dataset_train_split": _COLUMNS, "dataset_test_split": _EVALUATION, "dataset_config": _COLUMNS,
        "dataset_text_field": _COLUMNS,
        "dataset_kwargs": _COLUMNS, "packing*": _MEMORY, "disable_dropout": needless("dropout is always off"),
        "truncation_mode": needless("pairs that are too long are dropped and counted"),
        "precompute_ref_log_probs": needless("always done"), "generate_during_eval": _EVALUATION, "num_sample_generations": _EVALUATION,
        "reward_model_path": _REWARD_MODEL, "reward_model": _REWARD_MODEL, "rpo_alpha": off_or("no likelihood term in DPO"),
        "ld_alpha": off_or("no length term in DPO"), "f_divergence_type": lacking("reverse KL only"),
        "reference_free": off_or("DPO needs its reference"),
        "sync_ref_model": off_or("the reference stays fixed"), "completion_only_loss": needless("only replies are trained"),
        "assistant_only_loss": needless("only replies are trained"), "local_rollout_forward_batch_size": _MEMORY,
        "stop_token": needless("the tokenizer's own end of turn"),
        "whiten_rewards": off_or("scores are normalised once on reference samples, not in each batch"),
        "lora_task_type": needless("causal language models only"),
        "use_rslora": off_or("alpha / rank is the scale"), "bnb_*": _QUANTISED, "lr_scheduler_kwargs": off_or("set final_share by hand"),
        "adap_kl_ctrl": needless("kl.target switches the controller"), "log_with": _SAVING, "exp_name": _SAVING, "tracker_*": _SAVING,
        "project_kwargs": _SAVING,
        "ref_model*": lacking("the reference is the policy before training"), "kl_estimator": lacking("k1 in the reward"),
        "kl_penalty": lacking("k1 in the reward"),
    },
    defaults={
        "all": {**_HF_DEFAULTS, "epochs": 3, "device_batch": 8, "lora_rank": 16, "lora_alpha": 16.0},
        "sft": {"learning_rate": 2e-5}, "dpo": {"learning_rate": 1e-6, "beta": 0.1}, "rewards": {"learning_rate": 1e-4, "center_coef": 0.0},
        "ppo": {"kl_coef": 0.05, "kl_target": None, "ppo_epochs": 4},
    },
)  # fmt: skip

DSCHAT = Tool(
    name="dschat", takes_tables=False, kind=_dschat_kind, program=re.compile(r"((?:step[123]_\w+/)?main\.py)\b"),
    meanings={
        "model_name_or_path": "model", "actor_model_name_or_path": "model", "data_path": "datasets", "seed": "seed",
        "per_device_train_batch_size": "device_batch", "gradient_accumulation_steps": "accumulation", "max_seq_len": "max_length",
        "learning_rate": "learning_rate", "actor_learning_rate": "learning_rate", "weight_decay": "weight_decay",
        "actor_weight_decay": "weight_decay",
        "num_train_epochs": "epochs", "lr_scheduler_type": "schedule", "num_warmup_steps": "warmup_steps", "lora_dim": "lora_rank",
        "actor_lora_dim": "lora_rank", "lora_module_name": "lora_module", "actor_lora_module_name": "lora_module",
        "max_prompt_seq_len": "max_prompt", "max_answer_seq_len": "max_new", "ppo_epochs": "ppo_epochs",
        "per_device_generation_batch_size": "device_rollout", "per_device_training_batch_size": "device_minibatch",
        "per_device_mini_train_batch_size": "device_minibatch", "kl_ctl": "kl_coef",
    },
    by_kind={"ppo": {"per_device_train_batch_size": "device_rollout", "num_train_epochs": "prompt_epochs"}},
    left={
        "critic_model_name_or_path": _REWARD_MODEL, "critic_learning_rate": _CRITIC_RATE,
        "critic_*": needless("the value model begins as the reward model"),
        "data_split": _MIXING, "data_output_path": _MACHINE, "num_padding_at_beginning": needless("masks come from the template, not from padding"),
        "sft_only_data_path": lacking("name it in sft.data as well"), "unsupervised_dataset*": _PRETRAINING, "unsup_coef": _PRETRAINING,
        "zero_stage": _MACHINE, "*_zero_stage": _MACHINE, "deepspeed": _MACHINE, "offload*": _MACHINE, "*hybrid_engine": _MACHINE,
        "inference_tp_size": _MACHINE,
        "*dtype": _MACHINE, "compute_fp32_loss": _MACHINE, "local_rank": _MACHINE, "unpin_actor_parameters": _MACHINE,
        "tp_gather_partition_size": _MACHINE,
        "*gradient_checkpointing": _MEMORY, "per_device_eval_batch_size": _MEMORY, "output_dir": _SAVING, "*tensorboard*": _SAVING,
        "print_*": _SAVING,
        "save_steps": _SAVING, "eval_*": _EVALUATION, "*dropout": needless("dropout is always off"),
        "enable_ema": off_or("no moving average of weights"),
        "only_optimize_lora": needless("with adapters nothing else is trained"),
        "*lora_learning_rate": lacking("one rate for all trained weights"),
        "generation_batches": _MEMORY, "generation_batch_numbers": _MEMORY, "align_overflow": _MACHINE,
        "add_eot_token": lacking("the tokenizer is taken as it is"),
    },
    defaults={
        "all": {"schedule": "cosine", "warmup_share": 0.0, "lora_alpha": 1.0},
        "sft": {"device_batch": 16, "epochs": 1}, "rewards": {"device_batch": 16, "epochs": 1, "center_coef": 0.0},
        "ppo": {"kl_coef": 0.1, "kl_target": None, "max_prompt": 256, "max_new": 256, "ppo_epochs": 1, "lam": 0.95, "gamma": 1.0},
    },
)  # fmt: skip

_RENAMED = {  # OpenRLHF 0.10: flat name -> dotted names
    "pretrain": ("actor.model_name_or_path", "model.model_name_or_path"), "seed": ("train.seed",), "learning_rate": ("adam.lr",),
    "actor_learning_rate": ("actor.adam.lr",), "train_batch_size": ("train.batch_size",), "rollout_batch_size": ("rollout.batch_size",),
    "n_samples_per_prompt": ("rollout.n_samples_per_prompt",), "max_epochs": ("train.max_epochs",), "num_episodes": ("train.num_episodes",),
    "lora_rank": ("ds.lora.rank",), "lora_alpha": ("ds.lora.alpha",), "target_modules": ("ds.lora.target_modules",),
    "lora_dropout": ("ds.lora.dropout",),
    "adam_betas": ("adam.betas", "actor.adam.betas"), "l2": ("adam.weight_decay", "actor.adam.weight_decay"), "max_norm": ("max_norm",
    "actor.max_norm"),
    "lr_scheduler": ("lr_scheduler", "actor.lr_scheduler"), "lr_warmup_ratio": ("lr_warmup_ratio", "actor.lr_warmup_ratio"),
    "min_lr_ratio": ("min_lr_ratio", "actor.min_lr_ratio"), "max_len": ("data.max_len",), "generate_max_len": ("rollout.max_new_tokens",),
    "dataset": ("data.dataset",), "prompt_data": ("data.prompt_dataset",), "max_samples": ("data.max_samples",),
    "apply_chat_template": ("data.apply_chat_template",),
    "input_template": ("data.input_template",), "init_kl_coef": ("algo.kl.init_coef",), "kl_target": ("algo.kl.target",),
    "kl_horizon": ("algo.kl.horizon",),
    "eps_clip": ("actor.eps_clip",), "eps_clip_low_high": ("actor.eps_clip_low_high",), "value_clip": ("critic.value_clip",),
    "gamma": ("algo.advantage.gamma",), "lambd": ("algo.advantage.lambd",), "temperature": ("rollout.temperature",),
    "entropy_loss_coef": ("entropy_coef", "actor.entropy_coef"), "adam_eps": ("adam.eps", "actor.adam.eps"),
    "advantage_estimator": ("algo.advantage.estimator",),
    "beta": ("dpo.beta", "train.beta"), "ipo": ("dpo.ipo", "train.ipo"), "label_smoothing": ("dpo.label_smoothing", "train.label_smoothing"),
}  # fmt: skip
_OPENRLHF = {
    "pretrain": "model", "seed": "seed", "learning_rate": "learning_rate", "actor_learning_rate": "learning_rate", "train_batch_size": "batch",
    "rollout_batch_size": "prompts_a_round", "n_samples_per_prompt": "samples_a_prompt", "max_epochs": "epochs", "num_episodes": "prompt_epochs",
    "lora_rank": "lora_rank", "lora_alpha": "lora_alpha", "target_modules": "lora_targets", "adam_betas": "betas", "l2": "weight_decay",
    "max_norm": "max_grad_norm", "lr_scheduler": "schedule", "lr_warmup_ratio": "warmup_share", "min_lr_ratio": "final_share",
    "max_len": "max_length",
    "prompt_max_len": "max_prompt", "generate_max_len": "max_new", "dataset": "datasets", "prompt_data": "datasets", "max_samples": "max_samples",
    "apply_chat_template": "own_template", "init_kl_coef": "kl_coef", "kl_target": "kl_target", "kl_horizon": "kl_horizon", "eps_clip": "clip",
    "eps_clip_low_high": "clips", "value_clip": "value_clip", "gamma": "gamma", "lambd": "lam", "temperature": "temperature",
    "entropy_loss_coef": "entropy_coef", "adam_eps": "adam_eps", "beta": "beta", "ipo": "ipo", "label_smoothing": "label_smoothing",
    "advantage_estimator": "method",
}  # fmt: skip


def _dotted(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table under both the flat and the dotted names."""
    return {name: value for flat, value in table.items() for name in (flat, *_RENAMED.get(flat, ()))}


OPENRLHF = Tool(
    name="openrlhf", takes_tables=False, kind=_openrlhf_kind, program=re.compile(r"openrlhf(?:\.|/)cli(?:\.|/)(train_\w+)"),
    meanings=_dotted(_OPENRLHF),
    by_kind={"ppo": _dotted({"max_epochs": "ppo_epochs", "train_batch_size": "minibatch"}),
             "rewards": {"reward.model_name_or_path": "model"}},
    left={
        **_dotted({"lora_dropout": _ADAPTER_DROPOUT, "input_template": off_or("templates are Jinja files over messages; name one in text.template")}),
        "critic_learning_rate": _CRITIC_RATE, "critic.adam.lr": _CRITIC_RATE, "reward_pretrain": _REWARD_MODEL,
        "reward.model_name_or_path": _REWARD_MODEL,
        "remote_rm_url": _REWARD_MODEL, "reward.remote_url": _REWARD_MODEL,
        "critic_pretrain": needless("the value model begins as the reward model"),
        "critic.*": needless("the value model begins as the reward model, with the policy's optimiser"),
        "ref_pretrain": needless("the reference is the policy before training"),
        "ptx_coef": _PRETRAINING, "pretrain_data*": _PRETRAINING, "nll_loss_coef": off_or("no likelihood term in DPO"),
        "aux_loss_coef": off_or("no balancing loss for experts"),
        "*_probs": _MIXING, "data.prompt_probs": _MIXING, "*input_key": _COLUMNS, "*output_key": _COLUMNS, "*_key": _COLUMNS, "*split": _COLUMNS,
        "normalize_reward": needless("always done, on reference samples"),
        "reward.normalize_enable": needless("always done, on reference samples"),
        "reward.*": lacking("rewards are normalised, clipped and length-corrected by policies.ppo"),
        "reward_clip_range": lacking("set score_clip by hand"),
        "kl_estimator": lacking("k1 in the reward"), "algo.kl.*": lacking("k1 in the reward"), "use_kl_loss": off_or("KL is part of the reward"),
        "top_p": lacking("PPO samples from the whole distribution"), "rollout.top_p": lacking("PPO samples from the whole distribution"),
        "freezing_actor_steps": off_or("policy and value model train together"), "load_in_4bit": _QUANTISED, "ds.load_in_4bit": _QUANTISED,
        "micro_*": _MEMORY, "*micro_batch_size": _MEMORY, "*gradient_checkpointing*": _MEMORY, "*packing_samples": _MEMORY,
        "*max_tokens_per_gpu": _MEMORY,
        "*dynamic_batch*": _MEMORY, "save_*": _SAVING, "ckpt*": _SAVING, "max_ckpt_*": _SAVING, "load_checkpoint": _SAVING,
        "logging_steps": _SAVING, "logger.*": _SAVING,
        "use_wandb": _SAVING, "wandb_*": _SAVING, "use_tensorboard": _SAVING, "eval*": _EVALUATION, "best_metric*": _EVALUATION,
        "zero_stage": _MACHINE, "zpg": _MACHINE, "bf16": _MACHINE,
        "param_dtype": _MACHINE, "flash_attn": _MACHINE, "attn_implementation": _MACHINE, "adam_offload": _MACHINE, "ref_offload": _MACHINE,
        "grad_accum_dtype": _MACHINE, "disable_*": _MACHINE, "overlap_comm": _MACHINE, "local_rank": _MACHINE, "*num_nodes": _MACHINE,
        "*num_gpus_per_node": _MACHINE, "vllm*": _MACHINE, "enforce_eager": _MACHINE, "colocate_*": _MACHINE, "train.colocate*": _MACHINE,
        "ds.*": _MACHINE, "enable_prefix_caching": _MACHINE, "ring_*": _MACHINE, "use_liger_kernel": _MACHINE, "use_ms": _MACHINE,
        "ref.offload": _MACHINE,
        "deepspeed_enable_sleep": _MACHINE, "*dataloader*": _MACHINE, "*optim": _optimiser,
        "loss": needless("the reward model's loss is the Bradley-Terry likelihood"),
    },
    defaults={
        "all": {"schedule": "cosine_with_min_lr", "warmup_share": 0.03, "lora_alpha": 16.0},
        "dpo": {"beta": 0.1, "batch": 128}, "sft": {"batch": 128}, "rewards": {"batch": 128, "center_coef": 0.0},
        "ppo": {"kl_coef": 0.01, "kl_target": None, "prompts_a_round": 1024, "samples_a_prompt": 1, "minibatch": 128, "ppo_epochs": 1,
        "lam": 1.0},
    },
)  # fmt: skip

TOOLS: Mapping[str, Tool] = {tool.name: tool for tool in (AXOLOTL, TRL, DSCHAT, OPENRLHF)}
