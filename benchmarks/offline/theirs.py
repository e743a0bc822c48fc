"""One cell of the comparison on TRL's side, run by its own interpreter (see `run.py`); the last line printed is its JSON.

Settings: `default` (padded rows in random order, the reference in every DPO step), `best` (rows grouped by length, the reference
computed beforehand) and `best_bf16` (the same under bf16 autocast). It gets the token ids that Fairlead gets. With `--device cuda`
(benchmarks/gpu) precision and activation checkpointing stay at TRL's defaults too, and memory that runs out is the cell's result.
"""

import time

import cells
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from work import read_rows


class Watch(TrainerCallback):
    """Feeds the clock and stops the run."""

    def __init__(self, clock: cells.Clock | None) -> None:
        self.clock, self.rows, self.tokens, self.losses = clock, 0, 0, []
        self.prepared = 0.0  # seconds of reference logprobs

    def on_train_begin(self, args, state, control, **kwargs):
        if self.clock:
            self.clock.last = cells.now(self.clock.device)

    def on_step_end(self, args, state, control, **kwargs):
        if self.clock and self.clock.tick(rows=self.rows, tokens=self.tokens, computed=self.tokens):
            control.should_training_stop = True
        self.rows = self.tokens = 0
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def main() -> None:
    """Run the cell."""
    args = cells.parse_args(__doc__, ("default", "best", "best_bf16"))
    torch.set_num_threads(args.threads)
    watch = Watch(None if args.agree else cells.Clock(args.seconds, device=args.device))
    is_best = args.setting != "default"
    order = "sequential" if args.agree else "group_by_length" if is_best else "random"
    rows = args.per_device or args.batch_size
    on_cpu = {"use_cpu": True, "bf16": args.setting == "best_bf16", "gradient_checkpointing": False}
    options = {
        "output_dir": str(args.work / "trl"), **(on_cpu if args.device == "cpu" else {}), "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "learning_rate": cells.LEARNING_RATE, "lr_scheduler_type": "constant", "seed": args.seed,
        "max_steps": args.agree or 10**6, "logging_steps": 1 if args.agree else 10**6, "max_length": args.max_length,
        "train_sampling_strategy": order,
        "length_column_name": "length", "remove_unused_columns": False, "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": args.batch_size // rows,
    }  # fmt: skip
    try:
        trainer, prepared = MAKERS[args.method](args, options, watch)
        trainer.train()
    except torch.OutOfMemoryError as error:
        cells.report(failed=str(error).splitlines()[0])
        return
    if args.agree:
        cells.report(losses=watch.losses)
        return
    memory = cells.peak_memory_mb(args.device)
    is_low = args.setting == "best_bf16" or args.device == "cuda"
    peak = cells.peak_gflops("bf16" if is_low else "fp32", device=args.device)
    cells.report(**watch.clock.summary(), prepare_s_per_row=prepared(), memory_mb=memory, peak_gflops=peak)


def counting(base: type, watch: Watch, rows_of: int) -> type:
    """The trainer with a count of the rows and useful tokens of each step."""

    class Counting(base):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset  # token ids already

        def _precompute_ref_logps(self, dataset, *args, **kwargs):
            started = time.perf_counter()
            found = super()._precompute_ref_logps(dataset, *args, **kwargs)
            watch.prepared += time.perf_counter() - started
            return found

        def training_step(self, model, inputs, *args, **kwargs):
            mask = inputs["attention_mask"]
            watch.rows += mask.shape[0] // rows_of
            watch.tokens += int(mask.sum())
            return super().training_step(model, inputs, *args, **kwargs)

    return Counting


def make_sft(args, options: dict, watch: Watch):
    """Completion-only loss on prompt and completion."""
    from trl import SFTConfig, SFTTrainer

    rows = [{
        "input_ids": r["prompt_ids"] + r["completion_ids"], "length": len(r["prompt_ids"]) + len(r["completion_ids"]),
        "labels": [-100] * len(r["prompt_ids"]) + r["completion_ids"],
    } for r in read_rows(args.work / "sft.jsonl")]  # fmt: skip
    trainer = counting(SFTTrainer, watch, 1)(
        model=load(AutoModelForCausalLM, args), args=SFTConfig(**options), callbacks=[watch],
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(args.work / "model"),
    )  # fmt: skip
    return trainer, lambda: 0.0


def make_reward(args, options: dict, watch: Watch):
    """Bradley-Terry on pairs."""
    from trl import RewardConfig, RewardTrainer

    pairs = read_rows(args.work / ("rankings.jsonl" if args.method == "rank8" else "pairs.jsonl"))
    if args.method == "rank8":  # it has no rankings: four pairs a prompt, in which every completion is computed once
        pairs = [{"prompt_ids": r["prompt_ids"], "chosen_ids": r["completions_ids"][i], "rejected_ids": r["completions_ids"][i + 4]}
                 for r in pairs for i in range(4)]  # fmt: skip
    rows = [{
        "chosen_ids": r["prompt_ids"] + r["chosen_ids"], "rejected_ids": r["prompt_ids"] + r["rejected_ids"], "length": length(r),
    } for r in pairs]  # fmt: skip
    trainer = counting(RewardTrainer, watch, 2)(
        model=load(AutoModelForSequenceClassification, args, name="reward", num_labels=1), args=RewardConfig(**options), callbacks=[watch],
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(args.work / "reward"),
    )  # fmt: skip
    return trainer, lambda: 0.0


def make_dpo(args, options: dict, watch: Watch):
    """Sigmoid DPO; `best` computes the reference beforehand."""
    from trl import DPOConfig, DPOTrainer

    is_best = args.setting != "default"
    rows = read_rows(args.work / ("long.jsonl" if args.method == "long" else "pairs.jsonl"))
    rows = rows[: args.agree * args.batch_size if args.agree else args.num_reference]
    rows = [{**r, "length": length(r)} for r in rows]
    config = DPOConfig(**options, precompute_ref_log_probs=is_best,
                       precompute_ref_batch_size=args.batch_size if is_best else None)  # fmt: skip
    trainer = counting(DPOTrainer, watch, 2)(
        model=load(AutoModelForCausalLM, args), ref_model=None if is_best else load(AutoModelForCausalLM, args),
        args=config, callbacks=[watch], train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(args.work / "model"),
    )  # fmt: skip
    return trainer, lambda: watch.prepared / len(rows)


def length(row: dict) -> int:
    """Of the longer side."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def load(kind, args, *, name: str = "model", **options):
    """sdpa attention (the default)."""
    return kind.from_pretrained(args.work / name, dtype=getattr(torch, args.dtype), **options)


MAKERS = {"sft": make_sft, "reward": make_reward, "dpo": make_dpo, "long": make_dpo, "rank8": make_reward}

if __name__ == "__main__":
    main()
