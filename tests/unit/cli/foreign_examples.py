"""Configurations of five tools as people write them (written for these tests)."""

from pathlib import Path

from fairlead.cli.import_config import translate_file
from fairlead.pipeline.recipe import Recipe, load

AXOLOTL_SFT = """
base_model: meta-llama/Llama-3.2-1B
model_type: AutoModelForCausalLM
datasets:
  - path: data/club.jsonl
    type: alpaca
  - path: org/chats
    type: chat_template
    field_messages: conversations
    message_property_mappings: {role: from}
val_set_size: 0.05
output_dir: ./out
sequence_len: 2048
sample_packing: true
adapter: qlora
load_in_4bit: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 3
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 2e-4
train_on_inputs: false
bf16: auto
warmup_steps: 10
weight_decay: 0.01
chat_template: chatml
flux_capacitor: 1
"""
AXOLOTL_DPO = """
base_model: ./models/sft-7b
rl: dpo
rl_beta: 0.05
datasets:
  - path: org/pairs
    split: train
    type: chatml.ultra
sequence_len: 1024
micro_batch_size: 1
gradient_accumulation_steps: 8
num_epochs: 1
learning_rate: 5e-7
lr_scheduler: linear
warmup_ratio: 0.1
special_tokens: {pad_token: "<pad>"}
"""
TRL_DPO = """
{"model_name_or_path": "org/base-1b", "dataset_name": "pairs.jsonl", "learning_rate": 5e-6, "num_train_epochs": 2.0, "beta": 0.2,
 "per_device_train_batch_size": 4, "gradient_accumulation_steps": 8, "loss_type": "robust", "label_smoothing": 0.15, "max_length": 1024,
 "lr_scheduler_type": "cosine", "warmup_ratio": 0.03, "adam_beta2": 0.98, "bf16": true, "output_dir": "out", "logging_steps": 5,
 "use_peft": true, "lora_r": 8, "lora_target_modules": "all-linear", "seed": 7, "report_to": "none"}
"""
TRL_PPO = r"""
#!/bin/bash
# --total_episodes 5 stands in a comment
MODEL=${1:-org/base-1b}
accelerate launch --config_file zero3.yaml --num_processes 4 \
    examples/scripts/ppo/ppo.py \
    --dataset_name org/prompts \
    --num_ppo_epochs 2 --num_mini_batches 2 \
    --learning_rate 3e-6 \
    --per_device_train_batch_size 4 \
    # a comment between two flags
    --gradient_accumulation_steps 2 \
    --total_episodes 10000 \
    --model_name_or_path $MODEL \
    --sft_model_path "${MODEL}-sft" \
    --reward_model_path org/reward \
    --missing_eos_penalty 1.0 --kl_coef=0.05 --output_dir $OUT 2>&1 | tee --append log.txt
"""
DSCHAT_PPO = r"""
#!/bin/bash
ACTOR_MODEL_PATH=$1
OUTPUT=$3
if [ "$OUTPUT" == "" ]; then
    OUTPUT=./output
fi
Actor_Lr=9.65e-6
deepspeed --master_port 12346 --num_gpus 8 training/step3_rlhf_finetuning/main.py \
   --data_path org/rm-a org/rm-b \
   --data_split 2,4,4 \
   --actor_model_name_or_path $ACTOR_MODEL_PATH \
   --critic_model_name_or_path output/step2 \
   --num_padding_at_beginning 1 \
   --per_device_generation_batch_size 4 \
   --per_device_training_batch_size 2 \
   --gradient_accumulation_steps 1 \
   --ppo_epochs 1 \
   --max_answer_seq_len 200 --max_prompt_seq_len 300 \
   --actor_learning_rate ${Actor_Lr} \
   --critic_learning_rate 5e-6 \
   --num_train_epochs 1 \
   --lr_scheduler_type cosine \
   --num_warmup_steps 100 \
   --deepspeed --seed 1234 \
   --actor_lora_dim 128 \
   --actor_lora_module_name decoder.layers. \
   --enable_hybrid_engine \
   --actor_zero_stage 2 \
   --unsup_coef 27.8 \
   --output_dir $OUTPUT &> $OUTPUT/training.log
"""
OPENRLHF_DPO = r"""
set -x
read -r -d '' training_commands <<EOF
openrlhf.cli.train_dpo \
   --save_path ./checkpoint/dpo \
   --train_batch_size 256 \
   --micro_train_batch_size 1 \
   --pretrain org/sft-8b \
   --max_epochs 1 \
   --max_len 2048 \
   --learning_rate 5e-7 \
   --beta 0.1 \
   --label_smoothing 0.1 \
   --adam_betas 0.9 0.98 \
   --dataset a.jsonl,b.jsonl \
   --input_template $'User: {}\nAssistant: ' \
   --apply_chat_template \
   --chosen_key chosen \
   --gradient_checkpointing
EOF
    # --ipo [for IPO]
if [[ ${1} != "slurm" ]]; then
    torchrun --standalone --nproc-per-node ${NPROC:-8} -m $training_commands
fi
"""
OPENRLHF_PPO = r"""
ray job submit --address="http://127.0.0.1:8265" --runtime-env-json='{"working_dir": "."}' \
   -- python3 -m openrlhf.cli.train_ppo_ray \
   --actor.num_nodes 1 --actor.num_gpus_per_node 8 \
   --vllm.num_engines 4 \
   --actor.model_name_or_path org/sft-8b \
   --reward.model_name_or_path org/rm-8b \
   --train.batch_size 128 --rollout.batch_size 256 --rollout.n_samples_per_prompt 2 \
   --train.max_epochs 1 --data.max_len 2048 --rollout.max_new_tokens 512 --data.max_samples 10000 \
   --actor.adam.lr 5e-7 --critic.adam.lr 9e-6 --actor.adam.betas 0.9 0.95 \
   --algo.kl.init_coef 0.01 --actor.eps_clip_low_high 0.2 0.28 --algo.advantage.gamma 1 --algo.advantage.lambd 0.95 \
   --data.prompt_dataset prompts.jsonl --data.apply_chat_template --reward.normalize_enable \
   --ds.zero_stage 3 --algo.kl.estimator k3
"""
LLAMAFACTORY_SIMPO = """
### model
model_name_or_path: org/sft-3b
trust_remote_code: false

### method
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 16
lora_target: q_proj,v_proj
use_dora: true
pref_beta: 2.0
pref_loss: simpo
simpo_gamma: 1.2

### dataset
dataset: club_pairs
template: qwen
cutoff_len: 1024
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16

### output
output_dir: saves/simpo
plot_loss: true

### train
per_device_train_batch_size: 2
gradient_accumulation_steps: 16
learning_rate: 6.0e-7
num_train_epochs: 1.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
optim: paged_adamw_8bit
ddp_timeout: 180000000
"""
LLAMAFACTORY_SFT = """
model_name_or_path: org/base-1b
stage: sft
finetuning_type: full
dataset: thumbs.jsonl
template: chatml
cutoff_len: 512
max_samples: 3000
mask_history: true
neftune_noise_alpha: 5
neat_packing: true
optim: adafactor
adam_beta2: 0.99
fp16: true
learning_rate: 1.0e-3
freeze_trainable_layers: 2
pure_bf16: false
"""
TRL_ORPO = r"""
accelerate launch examples/scripts/orpo.py \
    --dataset_name pairs.jsonl --model_name_or_path org/base-1b \
    --beta 0.25 --learning_rate 8e-6 --per_device_train_batch_size 4 --gradient_accumulation_steps 1 --num_train_epochs 3 \
    --optim adamw_bnb_8bit --gradient_checkpointing --bf16 --max_length 1024 --max_prompt_length 512 --warmup_steps 0.1 \
    --output_dir out --logging_steps 10 --label_smoothing 0.1
"""
TRL_CPO_SIMPO = """
{"model_name_or_path": "org/sft-1b", "dataset_name": "pairs.jsonl", "loss_type": "simpo", "simpo_gamma": 0.6, "cpo_alpha": 0.0,
 "beta": 2.0, "learning_rate": 1e-6, "num_train_epochs": 1, "dtype": "bfloat16", "optim": "muon"}
"""
AXOLOTL_KTO = """
base_model: org/sft-1b
rl: kto
rl_beta: 0.2
kto_desirable_weight: 1.0
kto_undesirable_weight: 1.5
datasets:
  - path: thumbs.jsonl
    type: chatml.argilla
val_set_size: 0.1
sequence_len: 1024
micro_batch_size: 4
gradient_accumulation_steps: 4
num_epochs: 1
optimizer: paged_adamw_32bit
learning_rate: 1e-6
gradient_checkpointing: offload
unfrozen_parameters: ["^lm_head.weight$", "model.layers.2[0-9]"]
bf16: auto
adapter:
"""
OPENRLHF_KTO = r"""
read -r -d '' training_commands <<EOF
openrlhf.cli.train_kto \
   --save_path ./checkpoint/kto --train_batch_size 64 --micro_train_batch_size 1 --pretrain org/sft-8b --bf16 --max_epochs 1 --max_len 2048 \
   --zero_stage 3 --learning_rate 5e-7 --dataset thumbs.jsonl --input_key instruction --output_key response --label_key score \
   --max_samples 1024 --gradient_checkpointing --packing_samples
EOF
deepspeed --module $training_commands
"""
CASES = {
    "axolotl-sft": ("axolotl", "sft.yml", AXOLOTL_SFT),
    "axolotl-dpo": ("axolotl", "dpo.yaml", AXOLOTL_DPO),
    "trl-dpo": ("trl", "dpo.json", TRL_DPO),
    "trl-ppo": ("trl", "ppo.sh", TRL_PPO),
    "dschat-ppo": ("dschat", "run_7b.sh", DSCHAT_PPO),
    "openrlhf-dpo": ("openrlhf", "dpo.sh", OPENRLHF_DPO),
    "openrlhf-ppo": ("openrlhf", "ppo.sh", OPENRLHF_PPO),
    "llamafactory-simpo": ("llamafactory", "qwen_lora_dpo.yaml", LLAMAFACTORY_SIMPO),
    "llamafactory-sft": ("llamafactory", "sft.yaml", LLAMAFACTORY_SFT),
    "trl-orpo": ("trl", "run.sh", TRL_ORPO),
    "trl-simpo": ("trl", "cpo.json", TRL_CPO_SIMPO),
    "axolotl-kto": ("axolotl", "kto.yaml", AXOLOTL_KTO),
    "openrlhf-kto": ("openrlhf", "kto.sh", OPENRLHF_KTO),
}


def translated(tmp_path: Path, case: str) -> tuple[Recipe, str, list[str]]:
    """The recipe, its text, and what the terminal shows."""
    tool, name, text = CASES[case]
    (tmp_path / name).write_text(text)
    lines = translate_file(tool, tmp_path / name, tmp_path / "recipe.yaml", force=False)
    return load(tmp_path / "recipe.yaml"), (tmp_path / "recipe.yaml").read_text(), lines
