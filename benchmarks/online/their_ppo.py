"""One cell of the comparison on TRL's side, PPO, run by its own interpreter (see `run.py`); the last line printed is its JSON.

The PPOTrainer of TRL 1.12, the last that has one. Settings: `default` (bf16 autocast and activation checkpointing, micro-batches of 8),
`fp32` and `bf16` (no checkpointing). It gets the token ids, weights and reward model that Fairlead gets; its value head starts at zero as ours does.

Where losses are compared, all of a step is one micro-batch, for it averages means of micro-batches; completions are all of one length; and
advantages are whitened by the population's variance as Fairlead does it, where TRL's own divides by n - 1.
"""

import torch
import trl.experimental.ppo.ppo_trainer as module
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks.offline.cells import peak_memory_mb, peaks_gflops, report, versions
from benchmarks.online import cells

SETTINGS = ("default", "fp32", "bf16")
MICRO_BATCH = 8


class Watch(TrainerCallback):
    """The clock, and the losses."""

    def __init__(self, clock: cells.StepClock) -> None:
        self.clock, self.losses = clock, []

    def on_train_begin(self, args, state, control, **kwargs):
        self.clock.start()
        return control

    def on_step_end(self, args, state, control, **kwargs):
        self.clock.tick()
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss/policy_avg" in logs:
            self.losses.append(logs["loss/policy_avg"] + args.vf_coef * logs["loss/value_avg"])


def main() -> None:
    """Run the cell."""
    args = cells.parse_args(__doc__, SETTINGS)
    torch.set_num_threads(args.threads)
    watch = Watch(cells.StepClock(warmup=args.warmup))
    trainer = make_trainer(args, watch)
    if args.agree:
        give_completions(args)
    time_phases(trainer, watch.clock)
    trainer.train()
    if args.agree:
        report(losses=watch.losses, versions=versions())
        return
    memory = peak_memory_mb()
    report(**watch.clock.summary(), memory_mb=memory, peak_gflops=peaks_gflops(), versions=versions())


def make_trainer(args, watch: Watch) -> PPOTrainer:
    """The trainer on prompts in the order of the steps, each eight times in a row."""
    tokenizer = AutoTokenizer.from_pretrained(args.work / "model", padding_side="left")
    prompts = [{"input_ids": ids} for ids in cells.prompts_of(args) for _ in range(cells.GROUP)]
    policy, reference = (load(AutoModelForCausalLM, args) for _ in range(2))
    reward, value = (load(AutoModelForSequenceClassification, args, name="reward", num_labels=1) for _ in range(2))
    torch.nn.init.zeros_(value.score.weight)
    trainer = PPOTrainer(
        args=config_of(args, len(prompts)), processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward, value_model=value,
        train_dataset=Dataset.from_list(prompts), eval_dataset=Dataset.from_list(prompts[:8]), callbacks=[watch],
    )  # fmt: skip
    ordered = DataLoader(
        trainer.train_dataset, batch_size=trainer.local_dataloader_batch_size, collate_fn=trainer.data_collator
    )
    trainer.dataloader = trainer.accelerator.prepare(ordered)
    return trainer


def config_of(args, num_episodes: int) -> PPOConfig:
    """What the trainer gets."""
    chosen = {} if args.setting == "default" else {"bf16": args.setting == "bf16", "gradient_checkpointing": False}
    episodes = cells.GROUP * (cells.AGREE_PROMPTS if args.agree else args.prompts)
    rows = episodes if args.agree else MICRO_BATCH
    return PPOConfig(
        output_dir=str(args.work / "trl"), save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, lr_scheduler_type="constant",
        learning_rate=cells.AGREE_RATE if args.agree else cells.LEARNING_RATE, logging_steps=1, seed=args.repeat, total_episodes=num_episodes,
        per_device_train_batch_size=rows, gradient_accumulation_steps=episodes // rows, num_ppo_epochs=cells.EPOCHS["ppo"], num_mini_batches=1,
        response_length=cells.AGREE_TOKENS if args.agree else args.new, temperature=1.0, kl_coef=cells.KL_COEF["ppo"],
        num_sample_generations=0, **chosen,
    )  # fmt: skip


def load(kind, args, *, name: str = "model", **options):
    """In fp32, as both sides hold their weights."""
    return kind.from_pretrained(args.work / name, dtype=torch.float32, **options)


def time_phases(trainer: PPOTrainer, clock: cells.StepClock) -> None:
    """Put the clock around generation and the forwards of optimiser steps."""
    generate = module.batch_generation

    def timed(*found, **kwargs):
        with clock.part("generate"):
            return generate(*found, **kwargs)

    module.batch_generation = timed


def give_completions(args) -> None:
    """The given completions in place of generation, with the policy's own logits; the rule in place of the reward model; whitening as ours."""
    rows = iter(ids for group in cells.given_completions(args) for ids in group)

    def batch_generation(model, queries, _size, pad, config):
        answers = torch.tensor([next(rows) for _ in range(len(queries))])
        texts = torch.cat((queries, answers), dim=1)
        logits = module.forward(model, texts, pad).logits[:, queries.shape[1] - 1 : -1]
        return texts, logits / (config.temperature)

    get_reward = module.get_reward

    def ruled(model, texts, pad, context):
        values, scores, ends = get_reward(model, texts, pad, context)
        return values, torch.tensor([cells.reward(row[context:].tolist()) for row in texts]).to(scores), ends

    def whiten(values, mask, shift_mean=True):
        kept = values[mask]
        found = (values - kept.mean()) * torch.rsqrt(kept.var(correction=0) + 1e-8)
        return found if shift_mean else found + kept.mean()

    module.batch_generation, module.get_reward, module.masked_whiten = batch_generation, ruled, whiten


if __name__ == "__main__":
    main()
