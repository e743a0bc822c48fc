"""One cell of the comparison on TRL's side, GRPO, run by its own interpreter (see `run.py`); the last line printed is its JSON.

Settings: `default` (what TRL does when nothing is said: bf16 autocast, activation checkpointing, no KL), `fp32` and `bf16` (no checkpointing),
each also as `..._kl` with Fairlead's default KL in the loss, for which TRL holds a reference. It gets the token ids that Fairlead gets.
Its continuous batching (`use_transformers_continuous_batching`) is slower than its default on this work, and takes more memory.
"""

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.offline.cells import peak_memory_mb, peaks_gflops, report, versions
from benchmarks.online import cells

SETTINGS = ("default", "fp32", "bf16", "fp32_kl", "bf16_kl")


def main() -> None:
    """Run the cell."""
    args = cells.parse_args(__doc__, SETTINGS)
    torch.set_num_threads(args.threads)
    watch = Watch(cells.StepClock(warmup=args.warmup))
    trainer = trainer_class(args, watch)(
        model=AutoModelForCausalLM.from_pretrained(args.work / "model", dtype=torch.float32), args=config_of(args),
        reward_funcs=paid, processing_class=AutoTokenizer.from_pretrained(args.work / "model"), callbacks=[watch],
        train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(len(cells.prompts_of(args)))]),
    )  # fmt: skip
    trainer.train()
    if args.agree:
        report(losses=watch.by_round(watch.losses), norms=watch.by_round(watch.norms), versions=versions())
        return
    memory = peak_memory_mb()
    report(**watch.clock.summary(), memory_mb=memory, peak_gflops=peaks_gflops(), versions=versions())


def paid(completion_ids: list[list[int]], **_: object) -> list[float]:
    """The reward function."""
    return [cells.reward(ids) for ids in completion_ids]


class Watch(TrainerCallback):
    """The clock, and the losses."""

    def __init__(self, clock: cells.StepClock) -> None:
        self.clock, self.losses, self.norms = clock, [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.clock.start()

    def on_step_end(self, args, state, control, **kwargs):
        self.clock.tick()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))

    def by_round(self, values: list[float]) -> list[float]:
        """Means over the steps of each round."""
        num = cells.AGREE_EPOCHS["grpo"]
        return [sum(values[i : i + num]) / num for i in range(0, len(values), num)]


def config_of(args) -> GRPOConfig:
    """What the trainer gets."""
    is_default, prompts = args.setting == "default", cells.AGREE_PROMPTS if args.agree else args.prompts
    chosen = {} if is_default else {"bf16": args.setting.startswith("bf16"), "gradient_checkpointing": False}
    epochs = cells.AGREE_EPOCHS["grpo"] if args.agree else cells.EPOCHS["grpo"]
    alike = (
        {"scale_rewards": "group", "loss_type": "dapo", "num_iterations": epochs, "max_grad_norm": 1e9}
        if args.agree
        else {}
    )
    return GRPOConfig(
        output_dir=str(args.work / "trl"), save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, lr_scheduler_type="constant",
        learning_rate=cells.AGREE_RATE if args.agree else cells.LEARNING_RATE, max_steps=args.agree * epochs or args.warmup + args.steps,
        logging_steps=1 if args.agree else 10**6, per_device_train_batch_size=cells.GROUP * prompts, num_generations=cells.GROUP,
        max_completion_length=cells.AGREE_TOKENS if args.agree else args.new, temperature=1.0, shuffle_dataset=False, seed=args.repeat,
        beta=cells.KL_COEF["grpo"] if args.setting.endswith("_kl") else 0.0, **chosen, **alike,
    )  # fmt: skip


def trainer_class(args, watch: Watch) -> type[GRPOTrainer]:
    """The trainer with the token ids of the work, and its phases timed."""
    prompts, clock = cells.prompts_of(args), watch.clock
    given = cells.given_completions(args) if args.agree else []

    class Timed(GRPOTrainer):
        def _tokenize_prompts(self, prompts_):
            self.asked = [int(text) for text in prompts_]
            return [prompts[i] for i in self.asked], None, {}

        def _generate_single_turn(self, *found, **kwargs):
            if given:
                return [given[i][n % cells.GROUP] for n, i in enumerate(self.asked)], None
            with clock.part("generate"):
                return super()._generate_single_turn(*found, **kwargs)

        def _generate_and_score_completions(self, inputs):
            with clock.part("collect"):
                return super()._generate_and_score_completions(inputs)

        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            watch.losses.append(float(loss.detach()))
            return loss

    return Timed


if __name__ == "__main__":
    main()
