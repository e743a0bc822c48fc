"""The work of the GPU benchmark: random models in the shapes of Qwen2.5, and rows of random token ids. Needs no network, no tokenizer.

    python -m benchmarks.gpu.work DIR --size 0.5B --device cuda

SFT: rows of 4,096 tokens, of which 512 are a prompt. Pairs (DPO, reward model): prompt and completions of lognormal length, mean 256,
sigma 0.6, 16 to 768 tokens.

What trains, as a `way`; P parameters, bytes of weights, gradients, moments and bf16 copies:

    full        fp32 weights, AdamW                          4 + 4 + 8 + 2 = 18 P       0.5B:  9 GB    7B: 137 GB
    low         bf16 weights, AdamW with bf16 moments        2 + 2 + 4     =  8 P       0.5B:  4 GB    7B:  61 GB
    low_8bit    bf16 weights, AdamW with 8-bit moments       2 + 2 + 2     =  6 P       (torchao)      7B:  46 GB
    lora        bf16 weights, frozen, fp32 adapters          2             =  2 P       (peft)         7B:  15 GB

`+recompute` adds activation checkpointing. A card takes the first way that fits (`choose_way`): on 80 GB 0.5B trains as `full`, 7B as
`low+recompute`, which needs no package beyond torch. Real training keeps fp32 weights; `low` is what one card has room for.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.offline import flops
from benchmarks.offline.flops import layer_weights
from benchmarks.offline.work import EOS, SPECIAL, write_rows
from fairlead.train.memory import Shape, Way, estimate

_COMMON = {"vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6}
SHAPES = {
    "0.5B": {**_COMMON, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "tie_word_embeddings": True},
    "7B": {**_COMMON, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "tie_word_embeddings": False},
    "tiny": {**_COMMON, "vocab_size": 320, "max_position_embeddings": 256, "hidden_size": 32, "intermediate_size": 64,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
}  # fmt: skip
"""Of Qwen2.5-0.5B and Qwen2.5-7B (whose own table has 152,064 rows, 128 more); tiny is for trying the code."""
ROPE_THETA = 1e6
STATE_BYTES = {"full": 18, "low": 8, "low_8bit": 6, "lora": 2}
"""Of a parameter, before activations."""
RECOMPUTE = "+recompute"
WAYS = tuple(way + more for way in STATE_BYTES for more in ("", RECOMPUTE))
DEFAULT_WAYS = ("full", "full" + RECOMPUTE, "low", "low" + RECOMPUTE)
"""In order of preference; the others need packages, and are for `--way`."""
DONE = "done"
"""File that says that a folder is whole."""
FULL_CARD = 0.92
"""Share of a card's memory that an estimate may fill; the CUDA context and gaps take the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the rows: their numbers, tokens of prompt and completion, and rows of an optimiser step."""

    sft: tuple[int, int, int]
    """Rows, prompt, completion."""
    pairs: tuple[int, int, int]
    """Rows, mean of the lengths, longest."""
    batch_sft: int
    batch_pairs: int


SIZES = Sizes(sft=(128, 512, 3584), pairs=(512, 256, 768), batch_sft=8, batch_pairs=32)
TINY = Sizes(sft=(8, 8, 24), pairs=(8, 12, 24), batch_sft=2, batch_pairs=4)


def sizes_of(size: str) -> Sizes:
    """The rows that a model gets."""
    return TINY if size == "tiny" else SIZES


def main() -> None:
    """Make the data and one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(SHAPES), required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    args = parser.parse_args()
    make(args.folder, args.size, device=args.device)


def make(folder: Path, size: str, *, device: str) -> None:
    """Write model/, reward/ (the same), sft.jsonl and pairs.jsonl, unless they are there."""
    done = folder / DONE
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    make_rows(folder, sizes_of(size), vocabulary=SHAPES[size]["vocab_size"])
    make_model(folder / "model", size, device=device)
    if not (folder / "reward").is_symlink():
        (folder / "reward").symlink_to("model")
    done.touch()


def make_rows(folder: Path, sizes: Sizes, *, vocabulary: int) -> None:
    """Seeded rows of token ids."""
    rng = np.random.default_rng(1234)

    def piece(length: int, *, ends: bool = False) -> list[int]:
        return [*rng.integers(len(SPECIAL), vocabulary, length - ends).tolist(), *([EOS] if ends else [])]

    num, prompt, completion = sizes.sft
    write_rows(folder / "sft.jsonl", [
        {"prompt_ids": piece(prompt), "completion_ids": piece(completion, ends=True)} for _ in range(num)
    ])  # fmt: skip
    num, mean, longest = sizes.pairs
    sigma = 0.6
    lengths = np.rint(rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, (num, 3)))
    write_rows(folder / "pairs.jsonl", [
        {"prompt_ids": piece(p), "chosen_ids": piece(c, ends=True), "rejected_ids": piece(r, ends=True)}
        for p, c, r in np.clip(lengths, 16 if mean > 16 else 4, longest).astype(int).tolist()
    ])  # fmt: skip


def make_model(folder: Path, size: str, *, device: str) -> None:
    """Random weights, drawn on the device; with a tokenizer that TRL wants to see and nobody calls."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    config = Qwen2Config(**SHAPES[size], rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
                         pad_token_id=0, bos_token_id=1, eos_token_id=EOS)  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        dtype = torch.bfloat16 if size == "7B" else torch.float32  # 15 GB instead of 30 on disk
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIAL)}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
                            unk_token="<unk>").save_pretrained(folder)  # fmt: skip


def num_parameters(size: str) -> int:
    """Weights, biases and norms."""
    shape = SHAPES[size]
    hidden, table = shape["hidden_size"], shape["vocab_size"] * shape["hidden_size"]
    biases = hidden + 2 * _kv_width(shape)
    layer = layer_weights(shape) + biases + 2 * hidden
    return shape["num_hidden_layers"] * layer + hidden + table * (1 if shape["tie_word_embeddings"] else 2)


def _kv_width(shape: dict) -> int:
    return shape["hidden_size"] // shape["num_attention_heads"] * shape["num_key_value_heads"]


def needed_bytes(size: str, way: str, *, max_tokens: int) -> int:
    """Estimate of what training takes on a GPU, rows of `max_tokens` tokens; activations as `fairlead.train.memory` says."""
    shape, num = SHAPES[size], num_parameters(size)
    sizes = Shape(hidden=shape["hidden_size"], inner=shape["intermediate_size"], layers=shape["num_hidden_layers"],
                  heads=shape["num_attention_heads"], kv_heads=shape["num_key_value_heads"],
                  head_size=shape["hidden_size"] // shape["num_attention_heads"], vocabulary=shape["vocab_size"],
                  num_parameters=num, num_trained=num)  # fmt: skip
    need = estimate(sizes, Way(is_low=True, recomputes=way.endswith(RECOMPUTE), on_cpu=False))
    return STATE_BYTES[way.removesuffix(RECOMPUTE)] * num + need.further(max_tokens) - need.states


def choose_way(size: str, *, max_tokens: int, memory: int) -> str:
    """The first of DEFAULT_WAYS that fits into so many bytes, else the smallest of them."""
    fitting = (way for way in DEFAULT_WAYS if needed_bytes(size, way, max_tokens=max_tokens) <= FULL_CARD * memory)
    return next(fitting, DEFAULT_WAYS[-1])


def flops_per_token(size: str, rows: list[dict], *, method: str, way: str, is_shared: bool) -> float:
    """Model FLOPs of a training step for each useful token, with DPO's reference, which both sides' times include."""
    return flops.flops_per_token(
        SHAPES[size], [flops.lengths_of(row) for row in rows], has_head=method != "reward", has_reference=method == "dpo",
        is_shared=is_shared, is_frozen=way.startswith("lora"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
