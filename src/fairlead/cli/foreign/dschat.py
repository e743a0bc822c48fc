"""The vocabulary of DeepSpeed-Chat (DeepSpeedExamples)."""

import re
from collections.abc import Mapping
from pathlib import Path

from fairlead.cli.foreign.files import Foreign
from fairlead.cli.foreign.tool import (
    CRITIC_RATE,
    EVALUATION,
    MACHINE,
    MEMORY,
    MIXING,
    PRETRAINING,
    RECOMPUTES,
    REWARD_MODEL,
    SAVING,
    Kind,
    Tool,
    lacking,
    needless,
)


def _kind(foreign: Foreign, path: Path) -> Kind:
    steps: Mapping[str, Kind] = {"1": "sft", "2": "rewards", "3": "ppo"}
    step = re.search(r"step([123])", foreign.program) or re.search(r"step([123])", str(path))
    if step:
        return steps[step[1]]
    if "actor_model_name_or_path" in foreign.keys:
        return "ppo"
    return "rewards" if "num_padding_at_beginning" in foreign.keys else "sft"


DSCHAT = Tool(
    name="dschat", takes_tables=False, kind=_kind, program=re.compile(r"((?:step[123]_\w+/)?main\.py)\b"),
    meanings={
        "model_name_or_path": "model", "actor_model_name_or_path": "model", "data_path": "datasets", "seed": "seed",
        "per_device_train_batch_size": "device_batch", "gradient_accumulation_steps": "accumulation", "max_seq_len": "max_length",
        "learning_rate": "learning_rate", "actor_learning_rate": "learning_rate", "weight_decay": "weight_decay",
        "actor_weight_decay": "weight_decay",
        "num_train_epochs": "epochs", "lr_scheduler_type": "schedule", "num_warmup_steps": "warmup_steps", "lora_dim": "lora_rank",
        "actor_lora_dim": "lora_rank", "lora_module_name": "lora_module", "actor_lora_module_name": "lora_module",
        "max_prompt_seq_len": "max_prompt", "max_answer_seq_len": "max_new", "gradient_checkpointing": "recompute",
        "actor_gradient_checkpointing": "recompute",
        "enable_ema": "has_ema", "ppo_epochs": "ppo_epochs",
        "per_device_generation_batch_size": "device_rollout", "per_device_training_batch_size": "device_minibatch",
        "dtype": "dtype", "per_device_mini_train_batch_size": "device_minibatch", "kl_ctl": "kl_coef",
    },
    by_kind={"ppo": {"per_device_train_batch_size": "device_rollout", "num_train_epochs": "prompt_epochs"}},
    left={
        "critic_model_name_or_path": REWARD_MODEL, "critic_learning_rate": CRITIC_RATE,
        "critic_*": needless("the value model begins as the reward model"),
        "data_split": MIXING, "data_output_path": MACHINE, "num_padding_at_beginning": needless("masks come from the template, not from padding"),
        "sft_only_data_path": lacking("name it in sft.data as well"), "unsupervised_dataset*": PRETRAINING, "unsup_coef": PRETRAINING,
        "zero_stage": MACHINE, "*_zero_stage": MACHINE, "deepspeed": MACHINE, "offload*": MACHINE, "*hybrid_engine": MACHINE,
        "inference_tp_size": MACHINE,
        "*_dtype": MACHINE, "compute_fp32_loss": MACHINE, "local_rank": MACHINE, "unpin_actor_parameters": MACHINE,
        "tp_gather_partition_size": MACHINE,
        "critic_gradient_checkpointing": RECOMPUTES, "per_device_eval_batch_size": MEMORY, "output_dir": SAVING, "*tensorboard*": SAVING,
        "print_*": SAVING,
        "save_steps": SAVING, "eval_*": EVALUATION, "*dropout": needless("dropout is always off"),
        "only_optimize_lora": needless("with adapters nothing else is trained"),
        "*lora_learning_rate": lacking("one rate for all trained weights"),
        "generation_batches": MEMORY, "generation_batch_numbers": MEMORY, "align_overflow": MACHINE,
        "add_eot_token": lacking("the tokenizer is taken as it is"),
    },
    defaults={
        "all": {"schedule": "cosine", "warmup_share": 0.0, "lora_alpha": 1.0},
        "sft": {"device_batch": 16, "epochs": 1}, "rewards": {"device_batch": 16, "epochs": 1, "center_coef": 0.0},
        "ppo": {"kl_coef": 0.1, "kl_target": None, "max_prompt": 256, "max_new": 256, "ppo_epochs": 1, "lam": 0.95, "gamma": 1.0},
    },
)  # fmt: skip
