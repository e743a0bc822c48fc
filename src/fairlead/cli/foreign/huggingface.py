"""What transformers' Trainer and TRL's configs call things: shared by Axolotl, TRL and LLaMA-Factory, which are built on them."""

from typing import Any

from fairlead.cli.foreign.tool import (
    ADAPTER_DROPOUT,
    COLUMNS,
    EVALUATION,
    MACHINE,
    MEMORY,
    QUANTISED,
    RECOMPUTES,
    SAVING,
    Leaving,
    needless,
    off_or,
)

# Rates decay to 0, and Adam's second memory is longer than ours.
HF_DEFAULTS: dict[str, Any] = {"beta2": 0.999, "schedule": "linear", "warmup_share": 0.0}
HF_MEANINGS = {
    "seed": "seed", "learning_rate": "learning_rate", "warmup_ratio": "warmup_share", "weight_decay": "weight_decay",
    "adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "adam_eps", "max_grad_norm": "max_grad_norm",
    "gradient_accumulation_steps": "accumulation", "lora_r": "lora_rank", "lora_alpha": "lora_alpha", "lora_target_modules": "lora_targets",
    "warmup_steps": "warmup_steps", "max_steps": "max_steps", "center_rewards_coefficient": "center_coef", "beta": "beta",
    "label_smoothing": "label_smoothing", "optim": "optimizer", "gradient_checkpointing": "recompute", "neftune_noise_alpha": "neftune",
    "bf16": "bf16", "fp16": "fp16", "torch_dtype": "dtype", "dtype": "dtype", "use_rslora": "is_rslora", "use_dora": "is_dora",
    "rpo_alpha": "nll_coef", "ld_alpha": "ld_alpha", "simpo_gamma": "simpo_gamma", "cpo_alpha": "nll_coef",
}  # fmt: skip
HF_LEFT: dict[str, Leaving] = {
    "output_dir": SAVING, "overwrite_output_dir": SAVING, "save_*": SAVING, "logging_*": SAVING, "report_to": SAVING, "run_name": SAVING,
    "push_to_hub": SAVING, "hub_*": SAVING, "resume_from_checkpoint": SAVING, "wandb_*": SAVING, "mlflow_*": SAVING, "log_level": SAVING,
    "load_best_model_at_end": needless("SFT keeps its best step"), "metric_for_best_model": needless("SFT keeps its best step"),
    "eval_*": EVALUATION, "evaluation_strategy": EVALUATION, "do_eval": EVALUATION, "do_train": EVALUATION,
    "per_device_eval_batch_size": MEMORY,
    "tf32": MACHINE, "attn_implementation": MACHINE, "deepspeed": MACHINE, "fsdp*": MACHINE, "ddp*": MACHINE, "local_rank": MACHINE,
    "dataloader_*": MACHINE, "torch_compile*": MACHINE, "dataset_num_proc": MACHINE, "use_liger*": MACHINE,
    "gradient_checkpointing_kwargs": RECOMPUTES, "optim_args": off_or("settings of the optimiser have keys of their own in training"),
    "optim_target_modules": off_or("one optimiser for all weights"),
    "load_in_8bit": QUANTISED, "load_in_4bit": QUANTISED, "lora_dropout": ADAPTER_DROPOUT,
    "lora_modules_to_save": off_or("only linear layers get adapters; nothing else is trained beside them"),
    "trust_remote_code": off_or("code from a model folder is never run"), "remove_unused_columns": COLUMNS,
    "no_remove_unused_columns": COLUMNS, "group_by_length": MEMORY,
    "trl": needless("settings of another trainer"),
}  # fmt: skip
