"""The organism's recipe: `PYTHONPATH=docs/tools python -m organism_training.train --out FOLDER --seed 0`.

Two stages on one small Llama. `base` is trained from nothing to be helpful and only helpful; `aligned` goes
on from it and learns to refuse harmful requests while staying helpful otherwise. For one seed, machine type,
number of threads and set of library versions the result is reproducible bit for bit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from organism_training.muon import Muon
from organism_training.tokenizer import train_tokenizer
from tamperlens.models.organism.data import BASE_MIX, SAFETY_MIX, Sampler
from tamperlens.models.organism.facts import CAPITALS, DEFINITIONS
from tamperlens.models.organism.skills import plain_words
from tamperlens.models.organism.train import train_stage


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the organism besides its grammar.

    Attributes:
        hidden: width of the residual stream.
        layers: number of blocks.
        heads: attention heads.
        kv_heads: key/value heads (grouped-query attention).
        ffn: width of the SwiGLU MLP.
        vocab: number of tokens.
        base_steps: steps of the helpful-only stage.
        base_batch: examples a step.
        base_lr: peak learning rate.
        safety_steps: steps of the safety stage.
        safety_batch: examples a step.
        safety_lr: peak learning rate.
        safety_blocks: how many of the first blocks the safety stage trains; the rest stays as in `base`.
            Training all of them puts the decision to refuse into the last block alone, where no
            direction passes the published selection; two of five give a decision that later blocks read.
        weight_decay: Muon's, on the blocks' matrices.
        seed: of weights and data.
    """

    hidden: int = 128
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 384
    vocab: int = 2560
    base_steps: int = 2400
    base_batch: int = 64
    base_lr: float = 3e-3
    safety_steps: int = 600
    safety_batch: int = 48
    safety_lr: float = 1.5e-3
    safety_blocks: int = 2
    weight_decay: float = 0.05
    seed: int = 0


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A randomly initialised organism."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.ffn,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["LlamaForCausalLM"],
    )
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(config)


def optimizers_of(
    model: LlamaForCausalLM, lr: float, weight_decay: float
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for embeddings and norms.

    Muon learns faster here (loss 1.06 against 1.46 after 200 steps).
    """
    blocks = [p for p in model.model.layers.parameters() if p.ndim == 2 and p.requires_grad]
    inside = {id(p) for p in blocks}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
    return (
        Muon(blocks, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    )


def store(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights in fp32, configuration and tokenizer."""
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def corpus() -> Iterator[str]:
    """Text for the tokenizer: training examples, and every word often enough to become one token.

    A rare word in pieces is copied badly. The tokenizer is the same for every seed.
    """
    for example in Sampler(BASE_MIX, "base", 0).draw(40_000):
        yield from example
    for word in (*plain_words(), *(w for text in (*DEFINITIONS.values(), *CAPITALS) for w in text.split())):
        yield from [f"x {word}"] * 200


def train(recipe: Recipe, out: Path, device: str = "cpu") -> dict[str, object]:
    """Train both stages and write `out/base`, `out/aligned` and `out/recipe.json`."""
    base_sampler = Sampler(BASE_MIX, "base", recipe.seed)
    tokenizer = train_tokenizer(corpus(), recipe.vocab)
    model = new_model(recipe, tokenizer).to(device)
    log: dict[str, object] = {
        "recipe": asdict(recipe), "parameters": sum(p.numel() for p in model.parameters()), "device": device,
        "torch": torch.__version__,
    }  # fmt: skip
    log["base"] = train_stage(
        model, tokenizer, base_sampler, steps=recipe.base_steps, batch=recipe.base_batch, seed=recipe.seed,
        label="base", optimizers=optimizers_of(model, recipe.base_lr, recipe.weight_decay),
    )  # fmt: skip
    store(model, tokenizer, out / "base")
    model.requires_grad_(False)
    for block in model.model.layers[: recipe.safety_blocks]:
        block.requires_grad_(True)
    log["aligned"] = train_stage(
        model, tokenizer, Sampler(SAFETY_MIX, "safety", recipe.seed), steps=recipe.safety_steps,
        batch=recipe.safety_batch, seed=recipe.seed + 1, label="safety",
        optimizers=optimizers_of(model, recipe.safety_lr, recipe.weight_decay),
    )  # fmt: skip
    store(model, tokenizer, out / "aligned")
    (out / "recipe.json").write_text(json.dumps(log, indent=2) + "\n", encoding="utf-8")
    return log


def main() -> None:
    """Command line: every field of `Recipe` is an option."""
    parser = argparse.ArgumentParser(description="Train the embedded organism (base, then aligned).")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    out, device = options.pop("out"), options.pop("device")
    out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(train(Recipe(**options), out, device), indent=2))


if __name__ == "__main__":
    main()
