"""The fixed work: two Llama shapes with seeded random weights, and seeded rows of lognormal length. Needs no network.

    python -m benchmarks.offline.work DIR [--sizes S M]

Text is the standard library's source of the running Python, so use Python 3.11 for the same rows; the checksums below say whether
they are. Lengths of prompts and completions: lognormal, mean 128, sigma 0.6, 8 to 384 tokens.
"""

import argparse
import hashlib
import json
import math
import sysconfig
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SHAPES = {
    "S": {"vocab_size": 8192, "hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6,
          "intermediate_size": 768},
    "M": {"vocab_size": 16384, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
          "intermediate_size": 1536},
}  # fmt: skip
NUM_ROWS = 2048
NUM_LONG, NUM_RANKINGS = 256, 256
LONG_PROMPT = 512
"""Mean of the long prompts, tokens."""
CORPUS_TOKENS = 3_000_000
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
EOS = 2


def main() -> None:
    """Make the data and the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SHAPES), default=["S"])
    args = parser.parse_args()
    for size in args.sizes:
        make(args.folder / size, SHAPES[size])


def make(folder: Path, shape: dict[str, int]) -> None:
    """Write model/, reward/ (the same trunk with a score head) and the rows, and print the checksums of these."""
    if (folder / "checksums.json").exists():
        sums = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
        if set(sums) == {f"{name}.jsonl" for name in ("sft", "pairs", "long", "rankings")}:
            print(f"{folder} is there: {sums}")
            return
    folder.mkdir(parents=True, exist_ok=True)
    texts = corpus()
    tokenizer = train_tokenizer(texts, shape["vocab_size"])
    make_rows(folder, tokenizer, texts)
    make_models(folder, tokenizer, shape)
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in sorted(folder.glob("*.jsonl"))}
    (folder / "checksums.json").write_text(json.dumps(sums), encoding="utf-8")
    print(f"{folder}: {sums}")


def corpus() -> list[str]:
    """Sources of the standard library in a stable order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = ("site-packages", "/test/", "/encodings/", "lib2to3")
    files = sorted(str(p) for p in root.rglob("*.py"))
    return [Path(f).read_text(encoding="utf-8", errors="ignore") for f in files if not any(part in f for part in skip)]


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_rows(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Rows of token ids cut from the corpus."""
    stream: list[int] = []
    for text in texts:
        stream.extend(tokenizer.encode(text).ids)
        if len(stream) > CORPUS_TOKENS:
            break
    rng = np.random.default_rng(1234)

    def lengths(num: int = NUM_ROWS, *, mean: int = 128) -> np.ndarray:
        sigma = 0.6
        return np.clip(np.rint(rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, num)), 8, 3 * mean).astype(int)

    def piece(size: int) -> list[int]:
        start = int(rng.integers(0, len(stream) - size - 1))
        return stream[start : start + size]

    prompts, completions = lengths(), lengths()
    write_rows(folder / "sft.jsonl", [
        {"prompt_ids": piece(p), "completion_ids": [*piece(c), EOS]} for p, c in zip(prompts, completions, strict=True)
    ])  # fmt: skip
    prompts, chosen, rejected = lengths(), lengths(), lengths()
    write_rows(folder / "pairs.jsonl", [
        {"prompt_ids": piece(p), "chosen_ids": [*piece(c), EOS], "rejected_ids": [*piece(r), EOS]}
        for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ])  # fmt: skip
    prompts, chosen, rejected = lengths(NUM_LONG, mean=LONG_PROMPT), lengths(NUM_LONG), lengths(NUM_LONG)
    write_rows(folder / "long.jsonl", [
        {"prompt_ids": piece(p), "chosen_ids": [*piece(c), EOS], "rejected_ids": [*piece(r), EOS]}
        for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ])  # fmt: skip
    prompts, completions = lengths(NUM_RANKINGS), lengths(8 * NUM_RANKINGS).reshape(NUM_RANKINGS, 8)
    write_rows(folder / "rankings.jsonl", [
        {"prompt_ids": piece(p), "completions_ids": [[*piece(c), EOS] for c in row]}
        for p, row in zip(prompts, completions, strict=True)
    ])  # fmt: skip


def write_rows(path: Path, rows: list[dict]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict]:
    """JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_models(folder: Path, tokenizer: Tokenizer, shape: dict[str, int]) -> None:
    """Seeded random weights; the reward model has the policy's trunk."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
                                   model_max_length=2048)  # fmt: skip
    policy = make_policy(folder / "model", shape)
    fast.save_pretrained(folder / "model")
    reward = LlamaForSequenceClassification(LlamaConfig(**{**policy.config.to_dict(), "num_labels": 1}))
    reward.model.load_state_dict(policy.model.state_dict())
    torch.nn.init.normal_(reward.score.weight, std=1 / math.sqrt(shape["hidden_size"] + 1))
    reward.save_pretrained(folder / "reward")
    fast.save_pretrained(folder / "reward")


def make_policy(folder: Path, shape: dict[str, int]):
    """A Llama of a shape with seeded random weights, written without a tokenizer, and returned."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    config = LlamaConfig(
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
        **shape,
    )
    set_seed(0)
    policy = LlamaForCausalLM(config)
    policy.save_pretrained(folder)
    return policy


if __name__ == "__main__":
    main()
