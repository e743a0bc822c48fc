"""Run by test_train_memory in a process of its own: two training steps, then the peak beside the weights and its estimate, in bytes.

python measure_memory.py '{"hidden": 256, "tokens": 1024, "optimizer": "adamw", ...}'
"""

import dataclasses
import json
import sys

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fairlead.algos import get_algorithm
from fairlead.core.sections import TrainSection
from fairlead.models import attention
from fairlead.models.load import CausalModel
from fairlead.models.memory import PeakMemory, keep_freed_memory
from fairlead.models.native.heap import has_heap
from fairlead.models.snapshot import Snapshot
from fairlead.text import Branch, Tree
from fairlead.train.forward import Models
from fairlead.train.setup import make_learner, prepare_model, training_need

VOCABULARY = 4096


def new_model(hidden, *, precision):
    """A Llama with six layers."""
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=hidden,
                         intermediate_size=3 * hidden, num_hidden_layers=6, num_attention_heads=hidden // 32,
                         num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True)  # fmt: skip
    attention.register()
    config._attn_implementation = attention.NAME
    model = CausalModel(module=LlamaForCausalLM(config).float().eval(), config=config, name="measured")
    model.set_precision(precision)
    return model


def main(hidden, tokens, length, precision, **training):
    """Measure one setting."""
    keep_freed_memory()
    section = TrainSection.model_validate(training)
    model = prepare_model(new_model(hidden, precision=precision), section, seed=0)
    few = new_model(64, precision="fp32")  # what libraries allocate once is no part of a step
    step(few, TrainSection(max_tokens_per_microbatch=64), trees(1, 64))
    peak = PeakMemory()
    peak.start_stage()
    start = peak.of_stage
    step(model, section.model_copy(update={"max_tokens_per_microbatch": tokens}), trees(2 * tokens // length, length))
    need = training_need(Models(policy=model), section, largest=length)
    measured = (peak.of_stage - start) * 2**20
    return {"measured": measured, "estimated": need.further(tokens), "has_heap": has_heap(), "need": dataclasses.asdict(need)}  # fmt: skip


def trees(number, length):
    """Conversations of one length, every token but the first trained."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (number, length))
    return [Tree(prompt_ids=row[:1], branches=(Branch(token_ids=row[1:]),)) for row in ids]


def step(model, section, batch):
    """Two steps with the copy that a checkpoint makes between them."""
    sft = get_algorithm("sft")
    learner = make_learner(Models(policy=model), sft, sft.config(), section, num_steps=2, largest=1, say=print)
    learner.step(batch)
    snapshot = Snapshot()
    snapshot.take(learner.state()[0])
    learner.step(batch)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(json.dumps(main(**json.loads(sys.argv[1]))))
