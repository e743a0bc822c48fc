"""Axolotl's vocabulary. Written against Axolotl 0.13."""

from pathlib import Path

from fairlead.cli.foreign.files import Foreign
from fairlead.cli.foreign.huggingface import HF_DEFAULTS, HF_LEFT, HF_MEANINGS
from fairlead.cli.foreign.tool import (
    COLUMNS,
    EVALUATION,
    MACHINE,
    MEMORY,
    PACKED,
    SAVING,
    TOKENIZER,
    Kind,
    Tool,
    needless,
    off_or,
    refuse,
)

_METHODS: dict[object, Kind] = {True: "dpo", "dpo": "dpo", "ipo": "dpo", "orpo": "orpo", "simpo": "simpo", "kto": "kto"}


def _kind(foreign: Foreign, _path: Path) -> Kind:
    method = foreign.keys.get("rl")
    if method in (None, False, ""):
        return "rewards" if foreign.keys.get("reward_model") else "sft"
    if not isinstance(method, (str, bool)) or method not in _METHODS:
        raise refuse("axolotl", "rl", method)
    return _METHODS[method]


AXOLOTL = Tool(
    name="axolotl", program=None, takes_tables=True, kind=_kind,
    meanings={
        **HF_MEANINGS, "base_model": "model", "num_epochs": "epochs", "micro_batch_size": "device_batch", "lr_scheduler": "schedule",
        "cosine_min_lr_ratio": "final_share", "sequence_len": "max_length", "chat_template": "template", "datasets": "datasets",
        "val_set_size": "heldout", "rl": "method", "rl_beta": "beta", "dpo_beta": "beta", "dpo_label_smoothing": "label_smoothing",
        "adapter": "adapter", "lora_target_linear": "lora_linear", "early_stopping_patience": "patience", "reward_model": "is_reward",
        "chat_template_jinja": "inline_template", "optimizer": "optimizer", "orpo_alpha": "beta", "kto_desirable_weight": "good_weight",
        "kto_undesirable_weight": "bad_weight", "dpo_use_weighting": "is_weighted", "dpo_norm_loss": "is_average",
        "unfrozen_parameters": "unfrozen", "train_on_inputs": "learns_all", "bfloat16": "bf16", "float16": "fp16",
        "peft_use_rslora": "is_rslora", "peft_use_dora": "is_dora", "sample_packing": "packing", "max_prompt_len": "max_prompt",
    },
    left={
        **HF_LEFT, "model_type": MACHINE, "tokenizer_type": MACHINE, "base_model_config": MACHINE, "tokenizer_config": MACHINE,
        "is_*_derived_model": MACHINE, "strict": MACHINE, "flash_*": MACHINE, "sdp_attention": MACHINE, "xformers_attention": MACHINE,
        "s2_attention": MACHINE, "dataset_prepared_path": MACHINE, "dataset_processes": MACHINE, "plugins": MACHINE, "liger_*": MACHINE,
        "sample_packing_*": PACKED, "eval_sample_packing": PACKED, "pad_to_sequence_len": MEMORY, "pad_to_max_length": MEMORY,
        "saves_per_epoch": SAVING, "evals_per_epoch": EVALUATION, "auto_resume_from_checkpoints": SAVING, "debug": SAVING,
        "early_stopping*": SAVING,
        "lora_fan_in_fan_out": off_or("set by the adapter library"),
        "lora_model_dir": off_or("an adapter cannot be continued; merge it into the model first"),
        "peft*": off_or("LoRA, rsLoRA and DoRA are the adapters"),
        "special_tokens": TOKENIZER, "tokens": TOKENIZER, "added_tokens_overrides": TOKENIZER,
        "test_datasets": off_or("held-out rows come from the same files"),
        "shuffle_merged_datasets": needless("rows are shuffled by the seed"), "remove_unused_columns": COLUMNS,
        "precompute_ref_log_probs": needless("always done"), "lr_groups": off_or("one rate for all trained weights"),
        "embedding_lr*": off_or("one rate for all trained weights"),
    },
    defaults={
        "all": {**HF_DEFAULTS, "schedule": "cosine"}, "dpo": {"beta": 0.1}, "orpo": {"beta": 0.1}, "kto": {"beta": 0.1},
        "simpo": {"beta": 0.1, "simpo_gamma": 0.5, "nll_coef": 1.0},
    },
)  # fmt: skip
