"""One cell of the comparison on TRL's side, run by its own interpreter (see `run.py`); the last line printed is its JSON.

Settings: `default` (what TRL does when nothing is said: padded rows in random order, bf16 autocast, activation checkpointing, the reference
in every DPO step), `grouped` and `grouped_bf16` (rows grouped by length, the reference computed beforehand, no checkpointing; fp32, and bf16
autocast), `packing_bf16` (SFT: best-fit packing into TRL's default length of 1,024, about as many rows a step, attention kept apart). TRL's
`wrapped` packing cuts rows and lets them see each other, padding_free is documented for FlashAttention only, and DPO's is switched off in
this version: none of them does this work. It gets the token ids that Fairlead gets. With `--device cuda` (benchmarks/gpu) memory that
runs out is the cell's result.
"""

import time

import cells
import torch
from datasets import Dataset
from flops import lengths_of, useful_tokens
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from work import read_rows

SETTINGS = ("default", "grouped", "grouped_bf16", "packing_bf16")
PACKED_LENGTH = 1024
ROWS_A_PACK = 4
"""Of the fixed work, about: a step of 8 rows is one of 2 packs."""


class Watch(TrainerCallback):
    """Feeds the clock and stops the run."""

    def __init__(self, clock: cells.Clock | None) -> None:
        self.clock, self.rows, self.tokens, self.losses = clock, 0, 0, []
        self.prepared = {}  # the reference pass: rows, useful tokens, seconds

    def on_train_begin(self, args, state, control, **kwargs):
        if self.clock:
            self.clock.last = cells.now(self.clock.device)

    def on_step_end(self, args, state, control, **kwargs):
        if self.clock and self.clock.tick(rows=self.rows, tokens=self.tokens):
            control.should_training_stop = True
        self.rows = self.tokens = 0
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def main() -> None:
    """Run the cell."""
    args = cells.parse_args(__doc__, SETTINGS)
    torch.set_num_threads(args.threads)
    clock = cells.Clock(args.seconds, warmup=args.warmup, min_steps=args.min_steps, device=args.device)
    watch = Watch(None if args.agree else clock)
    try:
        MAKERS[args.method](args, options_of(args), watch).train()
    except torch.OutOfMemoryError as error:
        cells.report(failed=str(error).splitlines()[0])
        return
    if args.agree:
        cells.report(losses=watch.losses, versions=cells.versions())
        return
    memory = cells.peak_memory_mb(args.device)
    cells.report(**clock.summary(), prepared=watch.prepared, memory_mb=memory, peak_gflops=cells.peaks_gflops(args.device),
                 versions=cells.versions())  # fmt: skip


def options_of(args) -> dict:
    """What every trainer gets."""
    is_default = args.setting == "default"
    order = "sequential" if args.agree else "group_by_length" if args.setting.startswith("grouped") else "random"
    rows = args.per_device or args.batch_size
    is_low = args.setting.endswith("bf16")
    chosen = {} if is_default else {"bf16": is_low, "gradient_checkpointing": False, "train_sampling_strategy": order}
    return {
        "output_dir": str(args.work / "trl"), "save_strategy": "no", **({"use_cpu": True} if args.device == "cpu" else {}), **chosen,
        "report_to": "none", "disable_tqdm": True, "learning_rate": cells.LEARNING_RATE, "lr_scheduler_type": "constant", "seed": args.seed,
        "max_steps": args.agree or 10**6, "logging_steps": 1 if args.agree else 10**6, "max_length": args.max_length,
        "length_column_name": "length", "remove_unused_columns": False, "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": args.batch_size // rows,
    }  # fmt: skip


class Ordered(torch.utils.data.Sampler):
    """Rows in a fixed order."""

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices

    def __iter__(self):
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def counting(base: type, watch: Watch, *, args, tokens: list[int]) -> type:
    """The trainer with a count of the rows and useful tokens of each step, and its batches in a fair order.

    Args:
        tokens: useful ones of each row of the dataset.
    """
    sequences = 2 if args.method != "sft" else 1

    class Counting(base):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset  # token ids already

        def _get_train_sampler(self, train_dataset=None):
            found = list(super()._get_train_sampler(train_dataset))
            if args.agree:
                return Ordered(found)
            size = self.args.train_batch_size * self.args.gradient_accumulation_steps
            batches = [found[i : i + size] for i in range(0, len(found) - size + 1, size)]
            order = cells.fair_order([sum(tokens[i] for i in batch) for batch in batches], seed=args.seed)
            return Ordered([i for place in order for i in batches[place]])

        def _precompute_ref_logps(self, dataset, name, batch_size):
            if args.agree:
                return super()._precompute_ref_logps(dataset, name, batch_size)
            num = min(args.num_reference, len(dataset))
            further = range(num, min(num + cells.NUM_REFERENCE_WARMUP, len(dataset))) or range(num)
            super()._precompute_ref_logps(dataset.select(further), name, batch_size)
            some = dataset.select(range(num))
            started = time.perf_counter()
            super()._precompute_ref_logps(some, name, batch_size)
            watch.prepared = {"rows": num, "tokens": sum(tokens[:num]), "seconds": time.perf_counter() - started}
            for side in (
                "chosen",
                "rejected",
            ):  # the value of a model that knows nothing, in place of the pass over all rows
                nats = [
                    cells.placeholder_logprob(self.model.config.vocab_size) * len(ids) for ids in dataset[f"{side}_ids"]
                ]
                dataset = dataset.add_column(f"ref_{side}_logps", nats)
            return dataset

        def training_step(self, model, inputs, *args, **kwargs):
            if "attention_mask" in inputs:
                watch.rows += inputs["attention_mask"].shape[0] // sequences
                watch.tokens += int(inputs["attention_mask"].sum())
            else:  # packed, without padding
                watch.rows += int((inputs["position_ids"] == 0).sum())
                watch.tokens += inputs["input_ids"].numel()
            return super().training_step(model, inputs, *args, **kwargs)

    return Counting


def make_sft(args, options: dict, watch: Watch):
    """Completion-only loss on prompt and completion."""
    from trl import SFTConfig, SFTTrainer, pack_dataset

    rows = Dataset.from_list([
        {"input_ids": r["prompt_ids"] + r["completion_ids"], "labels": [-100] * len(r["prompt_ids"]) + r["completion_ids"]}
        for r in read_rows(args.work / "sft.jsonl")
    ])  # fmt: skip
    if args.setting == "packing_bf16":
        rows = pack_dataset(rows, PACKED_LENGTH, "bfd")
        packs = max(1, args.batch_size // ROWS_A_PACK)
        options |= {
            "packing": True,
            "max_length": PACKED_LENGTH,
            "per_device_train_batch_size": packs,
            "gradient_accumulation_steps": 1,
        }
    tokens = [len(ids) for ids in rows["input_ids"]]
    return counting(SFTTrainer, watch, args=args, tokens=tokens)(
        model=load(AutoModelForCausalLM, args), args=SFTConfig(**options), callbacks=[watch],
        train_dataset=rows.add_column("length", tokens), processing_class=AutoTokenizer.from_pretrained(args.work / "model"),
    )  # fmt: skip


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
    return counting(RewardTrainer, watch, args=args, tokens=useful(pairs))(
        model=load(AutoModelForSequenceClassification, args, name="reward", num_labels=1), args=RewardConfig(**options), callbacks=[watch],
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(args.work / "reward"),
    )  # fmt: skip


def make_dpo(args, options: dict, watch: Watch):
    """Sigmoid DPO; but for `default` the reference is computed beforehand."""
    from trl import DPOConfig, DPOTrainer

    is_default = args.setting == "default"
    rows = read_rows(args.work / ("long.jsonl" if args.method == "long" else "pairs.jsonl"))
    rows = rows[: args.agree * args.batch_size] if args.agree else rows
    config = DPOConfig(**options, precompute_ref_log_probs=not is_default,
                       precompute_ref_batch_size=None if is_default else args.batch_size)  # fmt: skip
    return counting(DPOTrainer, watch, args=args, tokens=useful(rows))(
        model=load(AutoModelForCausalLM, args), ref_model=load(AutoModelForCausalLM, args) if is_default else None,
        args=config, callbacks=[watch], train_dataset=Dataset.from_list([{**r, "length": length(r)} for r in rows]),
        processing_class=AutoTokenizer.from_pretrained(args.work / "model"),
    )  # fmt: skip


def useful(rows: list[dict]) -> list[int]:
    """Tokens of each row."""
    return [useful_tokens(lengths_of(row)) for row in rows]


def length(row: dict) -> int:
    """Of the longer side."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def load(kind, args, *, name: str = "model", **options):
    """sdpa attention (the default)."""
    return kind.from_pretrained(args.work / name, dtype=getattr(torch, args.dtype), **options)


MAKERS = {"sft": make_sft, "reward": make_reward, "dpo": make_dpo, "long": make_dpo, "rank8": make_reward}

if __name__ == "__main__":
    main()
