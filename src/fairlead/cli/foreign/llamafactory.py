"""LLaMA-Factory's vocabulary. Written against LLaMA-Factory 0.9; `stage` says what is trained, `pref_loss` with which loss."""

import re
from collections.abc import Mapping
from pathlib import Path

from fairlead.cli.foreign.files import Foreign
from fairlead.cli.foreign.huggingface import HF_DEFAULTS, HF_LEFT, HF_MEANINGS
from fairlead.cli.foreign.tool import (
    EVALUATION,
    MACHINE,
    MEMORY,
    QUANTISED,
    REWARD_MODEL,
    SAVING,
    TOKENIZER,
    Kind,
    Tool,
    lacking,
    needless,
    off_or,
    refuse,
)

_STAGES: Mapping[str, Kind] = {"sft": "sft", "rm": "rewards", "dpo": "dpo", "kto": "kto", "ppo": "ppo"}
_LOSSES: Mapping[str, Kind] = {"sigmoid": "dpo", "hinge": "dpo", "ipo": "dpo", "orpo": "orpo", "simpo": "simpo"}
_FREEZING = lacking("the file does not say how many layers there are; name frozen ones in training.freeze")
_OTHER_OPTIMISER = off_or("adamw, adamw_8bit, muon and adafactor are the optimisers")


def _kind(foreign: Foreign, _path: Path) -> Kind:
    stage, loss = str(foreign.keys.get("stage", "sft")), str(foreign.keys.get("pref_loss", "sigmoid"))
    if stage not in _STAGES:
        raise refuse("llamafactory", "stage", stage)
    if stage != "dpo":
        return _STAGES[stage]
    if loss not in _LOSSES:
        raise refuse("llamafactory", "pref_loss", loss)
    return _LOSSES[loss]


LLAMAFACTORY = Tool(
    name="llamafactory", takes_tables=True, kind=_kind, datasets_are="data set of dataset_info.json",
    program=re.compile(r"(?:llamafactory-cli|lmf|llmtuner)\s+(train)\b|(?:src/)?(train_bash|train)\.py\b"),
    meanings={
        **HF_MEANINGS, "model_name_or_path": "model", "num_train_epochs": "epochs", "per_device_train_batch_size": "device_batch",
        "lr_scheduler_type": "schedule", "stage": "method", "pref_loss": "loss", "pref_beta": "beta", "dpo_beta": "beta", "kto_beta": "beta",
        "pref_ftx": "nll_coef", "dpo_label_smoothing": "label_smoothing", "kto_chosen_weight": "good_weight",
        "kto_rejected_weight": "bad_weight", "cutoff_len": "max_length", "template": "template", "dataset": "datasets",
        "val_size": "heldout", "finetuning_type": "adapter", "lora_rank": "lora_rank", "lora_target": "lora_targets",
        "train_on_prompt": "learns_all", "mask_history": "learns_last", "max_samples": "max_samples", "packing": "packing",
        "neat_packing": "packing", "label_smoothing_factor": "sft_smoothing", "ppo_epochs": "ppo_epochs", "ppo_target": "kl_target",
        "ppo_buffer_size": "num_minibatches", "max_new_tokens": "max_new", "temperature": "temperature", "pure_bf16": "bf16",
        "use_muon": "is_muon",
    },
    left={
        **HF_LEFT, "disable_gradient_checkpointing": MEMORY, "flash_attn": MACHINE, "enable_liger_kernel": MACHINE,
        "use_unsloth*": MACHINE, "preprocessing_num_workers": MACHINE, "overwrite_cache": MACHINE, "cache_dir": MACHINE, "streaming": MACHINE,
        "ddp_timeout": MACHINE, "include_*": MACHINE, "plot_loss": SAVING, "use_swanlab": SAVING, "swanlab_*": SAVING, "dataset_dir": MACHINE,
        "do_predict": EVALUATION, "predict_with_generate": EVALUATION, "eval_dataset": EVALUATION, "media_dir": MACHINE,
        "freeze_trainable_*": _FREEZING, "freeze_extra_modules": _FREEZING, "use_badam": _OTHER_OPTIMISER, "badam_*": _OTHER_OPTIMISER,
        "use_galore": _OTHER_OPTIMISER, "galore_*": _OTHER_OPTIMISER, "use_apollo": _OTHER_OPTIMISER, "apollo_*": _OTHER_OPTIMISER,
        "use_adam_mini": _OTHER_OPTIMISER, "loraplus_*": off_or("one rate for all trained weights"), "pissa_*": off_or("adapters begin at zero"),
        "additional_target": off_or("only linear layers get adapters; nothing else is trained beside them"),
        "adapter_name_or_path": off_or("an adapter cannot be continued; merge it into the model first"),
        "create_new_adapter": needless("always a new one"), "quantization_*": QUANTISED, "double_quantization": QUANTISED,
        "pref_bco_weight": off_or("no classifier's term beside DPO; bco is a method of its own"),
        "ref_model*": off_or("the reference is the policy before training"),
        "reward_model*": REWARD_MODEL, "ppo_score_norm": needless("always done, on reference samples"),
        "ppo_whiten_rewards": off_or("scores are normalised once on reference samples, not in each batch"),
        "top_k": off_or("set top_k of the policy's section if it is meant"), "top_p": needless("set top_p of the policy's section if it is meant"),
        "resize_vocab": TOKENIZER, "add_tokens": TOKENIZER, "add_special_tokens": TOKENIZER, "new_special_tokens": TOKENIZER,
        "rope_scaling": off_or("positions are the model's own"), "mix_strategy": needless("files are joined"), "buffer_size": MACHINE,
        "tokenized_path": MACHINE, "default_system": off_or("system turns stand in the data"), "tool_format": off_or("no tools"),
        "enable_thinking": off_or("the template decides"), "efficient_eos": MACHINE, "eval_*": EVALUATION,
        "image_*": off_or("text alone"), "video_*": off_or("text alone"), "use_dft_loss": off_or("the likelihood is the loss"),
    },
    defaults={
        "all": {**HF_DEFAULTS, "learning_rate": 5e-5, "epochs": 3, "device_batch": 8, "max_length": 2048, "adapter": "lora", "lora_rank": 8},
        "rewards": {"center_coef": 0.0}, "dpo": {"beta": 0.1}, "orpo": {"beta": 0.1}, "kto": {"beta": 0.1},
        "simpo": {"beta": 0.1, "simpo_gamma": 0.5}, "ppo": {"kl_target": 6.0, "ppo_epochs": 4, "max_new": 1024},
    },
)  # fmt: skip
