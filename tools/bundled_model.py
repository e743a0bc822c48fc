"""Train the small model that ships with the package: tokenizer, pretraining with Fairlead's own trainer, card.

    python tools/bundled_model.py --data DIR [--steps 3200] [--work runs/bundled-model]

DIR is the folder that docs/data.md describes; read from it: text/movie_reviews, text/sentence_polarity, sft/oasst100,
sft/self_instruct (the sets whose licences allow weights to be shipped). Killed and started again, it goes on at its last
checkpoint. On 2 cores it takes about 40 minutes.
"""

import argparse
import gzip
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fairlead.algos import get_algorithm
from fairlead.core.io import write_json, write_text
from fairlead.models import attention
from fairlead.models.checkpoint import save_policy
from fairlead.models.load import CausalModel
from fairlead.models.memory import keep_freed_memory
from fairlead.text.packing import Branch, Tree, pack_trees
from fairlead.train.checkpoints import CheckpointRule, Checkpoints
from fairlead.train.forward import Models
from fairlead.train.identity import data_fingerprint
from fairlead.train.loop import Learner
from fairlead.train.optim import OptimizerSettings
from fairlead.train.shelf import FOLDER, Shelf

OUT = Path(__file__).parents[1] / "src" / "fairlead" / "bundled" / "model"
SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}<|user|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 256
BATCH_TOKENS = 4096
HELDOUT_SHARE = 0.02
CHECKPOINT_EVERY_S = 60.0


def read_texts(data: Path) -> list[str]:
    """Every document as plain text with our own turn markers; reviews are detokenised."""
    texts = [
        detokenise(row["text"])
        for name in ("movie_reviews", "sentence_polarity")
        for row in rows(data / f"text/{name}.jsonl.gz")
    ]
    for row in rows(data / "sft/oasst100.jsonl.gz"):
        texts.append("".join(turn(m["role"], m["content"]) for m in row["messages"]))
    for row in rows(data / "sft/self_instruct.jsonl.gz"):
        question = f"{row['instruction']}\n{row['input']}".strip()
        texts.append(turn("user", question) + turn("assistant", row["output"]))
    return [t for t in texts if t]


def rows(path: Path) -> Iterator[dict]:
    """Rows of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def turn(role: str, content: str) -> str:
    """One turn as the chat template writes it."""
    return f"<|{'assistant' if role == 'assistant' else 'user'}|>{content.strip()}<|end|>"


def detokenise(text: str) -> str:
    """Undo the corpora's spaced, lower-cased form: join punctuation, begin sentences with a capital."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    text = re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", text)
    text = re.sub(r"\" ([^\"]*?) \"", r'"\1"', text).replace("--", " - ")
    text = re.sub(r"\.( \.)+", "...", text)
    text = re.sub(r"(^|[.!?]['\")]* )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
    return re.sub(r"\bi\b", "I", re.sub(r" {2,}", " ", text))


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a vocabulary of 2,048."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                        additional_special_tokens=SPECIAL[3:], model_max_length=CONTEXT)  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> CausalModel:
    """A Llama of about 1.6 million parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=160, intermediate_size=480, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.02,
    )  # fmt: skip
    attention.register()
    config._attn_implementation = attention.NAME
    return CausalModel(module=LlamaForCausalLM(config).float().eval(), config=config, name="bundled")


def make_rows(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[Tree]:
    """Documents cut to the context; each piece begins with BOS, a document's last piece ends with EOS."""
    trees = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        ids = [*ids, tokenizer.eos_token_id]
        for start in range(0, len(ids), CONTEXT - 1):
            piece = np.array([tokenizer.bos_token_id, *ids[start : start + CONTEXT - 1]], dtype=np.int64)
            if len(piece) > 8:
                trees.append(
                    Tree(
                        prompt_ids=np.zeros(0, dtype=np.int64),
                        branches=(Branch(token_ids=piece, kept=np.arange(len(piece)) > 0),),
                    )
                )
    return trees


def batches(trees: list[Tree], *, seed: int) -> Iterator[list[Tree]]:
    """Endless shuffled batches of about BATCH_TOKENS tokens."""
    epoch = 0
    while True:
        batch, size = [], 0
        for i in np.random.default_rng((seed, epoch)).permutation(len(trees)):
            batch.append(trees[i])
            size += trees[i].num_tokens
            if size >= BATCH_TOKENS:
                yield batch
                batch, size = [], 0
        epoch += 1


def heldout_loss(model: CausalModel, trees: list[Tree]) -> float:
    """Mean nats a token."""
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(trees), 32):
            logprobs = model.logprobs(pack_trees(trees[start : start + 32])).logprobs
            total, count = total - float(logprobs.sum()), count + len(logprobs)
    return total / count


def train(learner: Learner, trees: list[Tree], *, work: Path, seed: int) -> float:
    """All steps, from the last checkpoint on; returns the seconds that they took, restarts included."""
    owner = learner.identity(data=data_fingerprint(trees))
    checkpoints = Checkpoints(Shelf(work / FOLDER), CheckpointRule(keep=1), owner)
    used, resumed = 0.0, checkpoints.resume()
    if resumed is not None:
        learner.load_state(resumed.tensors(), resumed.state["learner"])
        used = resumed.state["seconds"]
    last = saved = time.monotonic()
    columns = (
        TextColumn("pretraining"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=learner.num_steps, completed=learner.step_number, note="")
        for number, batch in enumerate(batches(trees, seed=seed)):
            if learner.step_number == learner.num_steps:
                break
            if number < learner.step_number:
                continue
            metrics = learner.step(batch)
            now = time.monotonic()
            used, last = used + now - last, now
            progress.update(bar, completed=learner.step_number, note=f"loss {metrics['loss']:.3f}")
            if now - saved > CHECKPOINT_EVERY_S or learner.step_number == learner.num_steps:
                saved = now
                tensors, state = learner.state()
                step = {"step": learner.step_number, "metrics": {"loss": metrics["loss"]}}
                checkpoints.save(tensors, {**step, "learner": state, "seconds": used}, is_best=False)
    checkpoints.join()
    return used


def main() -> None:
    """Train, save, describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FAIRLEAD_DATA"))
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--work", type=Path, default=Path("runs/bundled-model"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data DIR (or FAIRLEAD_DATA) is needed; docs/data.md says where to get the sets")
    keep_freed_memory()
    console = Console()
    texts = read_texts(args.data)
    tokenizer = make_tokenizer(texts)
    order = np.random.default_rng(args.seed).permutation(len(texts))
    cut = int(len(texts) * HELDOUT_SHARE)
    heldout, kept = (
        make_rows([texts[i] for i in order[:cut]], tokenizer),
        make_rows([texts[i] for i in order[cut:]], tokenizer),
    )
    model = new_model(tokenizer, seed=args.seed)
    num_parameters = sum(p.numel() for p in model.module.parameters())
    epoch_tokens = sum(t.num_tokens for t in kept)
    console.print(f"{num_parameters:,} parameters, {epoch_tokens:,} tokens a pass, {len(kept):,} rows")
    sft = get_algorithm("sft")
    learner = Learner(models=Models(policy=model), algo=sft, algo_config=sft.config(), num_steps=args.steps, max_tokens=BATCH_TOKENS + CONTEXT,
                      optim=OptimizerSettings(learning_rate=3e-3, weight_decay=0.1, warmup_share=0.02, final_share=0.02))  # fmt: skip
    used = train(learner, kept, work=args.work, seed=args.seed)
    loss = heldout_loss(model, heldout)
    save_policy(
        CausalModel(module=model.module.to(torch.bfloat16), config=model.config, name="bundled"), tokenizer, args.out
    )
    GenerationConfig(bos_token_id=1, eos_token_id=[2, 5], pad_token_id=0).save_pretrained(args.out)
    facts = {
        "parameters": num_parameters, "tokens_per_pass": epoch_tokens, "tokens": learner.step_number * BATCH_TOKENS,
        "steps": learner.step_number, "minutes": round(used / 60, 1), "heldout_nats_per_token": round(loss, 4),
        "heldout_perplexity": round(math.exp(loss), 2), "seed": args.seed,
    }  # fmt: skip
    write_json(args.out / "training.json", facts)
    write_text(args.out / "README.md", CARD.format(**facts))
    console.print(facts)


CARD = """# The model that ships with Fairlead

A Llama of {parameters:,} parameters (width 160, 4 layers, 4 heads of 40 with 2 key heads, vocabulary 2,048 byte-level BPE, tied
embeddings, context 256), trained from scratch with Fairlead's own trainer by `tools/bundled_model.py` (seed {seed}): {steps:,} steps,
about {tokens:,} tokens in {minutes} minutes on 2 CPU cores. Held-out loss {heldout_nats_per_token} nats a token (perplexity
{heldout_perplexity}) on 2 % of the documents.

Purpose: to run the whole loop on a laptop, in tests and for teaching. It writes film-review English without knowledge; it is
not an assistant, and its text may repeat what reviewers wrote.

Trained on: 2,000 film reviews and 10,662 sentences of film reviews (Pang and Lee, as packaged by NLTK under CC-BY-4.0; the
reviews themselves are texts of their authors), 254 conversations of Open Assistant (Apache-2.0), 427 seed tasks of Self-Instruct
(Apache-2.0). Weights: Apache-2.0. See NOTICE.
"""

if __name__ == "__main__":
    main()
