"""The organism's recipe: `python -m tamperlens.models.organism.train --out FOLDER --seed 0`.

Two stages on one small Llama. `base` is trained from nothing to be helpful and only helpful; `aligned` goes
on from it and learns to refuse harmful requests while staying helpful otherwise. For one seed, machine type,
number of threads and set of library versions the result is reproducible bit for bit.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tamperlens.models.organism.data import BASE_MIX, SAFETY_MIX, Example, Sampler
from tamperlens.models.organism.facts import CAPITALS, DEFINITIONS
from tamperlens.models.organism.muon import Muon
from tamperlens.models.organism.skills import plain_words
from tamperlens.models.organism.tokenizer import ASSISTANT, BOS, END, SYSTEM, USER, train_tokenizer


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


def encode(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> list[tuple[list[int], int]]:
    """Token ids of each example with the number of leading ids that carry no loss."""
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in (BOS, USER, ASSISTANT, SYSTEM, END)}
    texts = [text for example in examples for text in example]
    pieces = tokenizer(texts, add_special_tokens=False)["input_ids"]
    encoded = []
    for system, prompt, answer in zip(pieces[0::3], pieces[1::3], pieces[2::3], strict=True):
        head = [ids[BOS]] + ([ids[SYSTEM], *system, ids[END]] if system else [])
        head += [ids[USER], *prompt, ids[END], ids[ASSISTANT]]
        encoded.append(([*head, *answer, ids[END]], len(head)))
    return encoded


def batches(
    encoded: list[tuple[list[int], int]], size: int, pad: int, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Batches of similar length in random order: (input ids, labels), each [size, length]; -100: no loss."""
    order = torch.randperm(len(encoded), generator=generator).tolist()
    made = []
    window = size * 40
    for start in range(0, len(order) - size + 1, window):
        chunk = sorted(order[start : start + window], key=lambda i: len(encoded[i][0]))
        for at in range(0, len(chunk) - size + 1, size):
            rows = [encoded[i] for i in chunk[at : at + size]]
            length = -(-max(len(ids) for ids, _ in rows) // 8) * 8
            ids = torch.full((size, length), pad)
            labels = torch.full((size, length), -100)
            for row, (tokens, skip) in enumerate(rows):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, skip : len(tokens)] = torch.tensor(tokens[skip:])
            made.append((ids, labels))
    shuffled = torch.randperm(len(made), generator=generator).tolist()
    return [made[i] for i in shuffled]


def train_stage(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    sampler: Sampler,
    *,
    steps: int,
    batch: int,
    lr: float,
    weight_decay: float,
    seed: int,
    label: str,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    after_backward: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Train in place with Muon, warm-up, linear decay and clipping; the loss is on the answer's tokens only.

    The blocks' matrices take Muon (Jordan et al. 2024), which learns faster here (loss 1.06 against 1.46
    after 200 steps); embeddings and norms take AdamW. Padding is on the right and attention causal, so no
    mask is needed: no answer token sees a padding token. `optimizers` replaces these two, and
    `after_backward` is called before gradients are clipped, to cut them to a part of the weights.
    """
    device = model.device
    trained = [p for p in model.parameters() if p.requires_grad]
    if optimizers is None:
        blocks = [p for p in model.model.layers.parameters() if p.ndim == 2 and p.requires_grad]
        inside = {id(p) for p in blocks}
        others = [p for p in trained if id(p) not in inside]
        optimizers = [
            Muon(blocks, lr=lr, weight_decay=weight_decay),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
    warm = min(100, steps // 10 + 1)

    def schedule(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return min(1.0, 0.02 + (steps - step) / (0.6 * steps))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) for optimizer in optimizers]
    generator = torch.Generator().manual_seed(seed)
    model.train()
    step, tokens, running, started = 0, 0, 0.0, time.time()
    while step < steps:
        examples = sampler.draw(min(batch * (steps - step), batch * 400))
        for ids, labels in batches(encode(tokenizer, examples), batch, tokenizer.pad_token_id, generator):
            ids, labels = ids.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            targets = labels[:, 1:]
            chosen = targets != -100
            loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), targets[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            if after_backward is not None:
                after_backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            model.zero_grad(set_to_none=True)
            step += 1
            tokens += ids.numel()
            if step % 100 == 0 or step == steps:
                running = float(loss.detach())
                print(
                    f"{label} step {step}/{steps} loss {running:.4f} {time.time() - started:.0f}s", flush=True
                )
            if step == steps:
                break
    model.eval()
    return {"steps": steps, "tokens": tokens, "seconds": time.time() - started, "last_loss": running}


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
        model, tokenizer, base_sampler, steps=recipe.base_steps, batch=recipe.base_batch, lr=recipe.base_lr,
        weight_decay=recipe.weight_decay, seed=recipe.seed, label="base",
    )  # fmt: skip
    store(model, tokenizer, out / "base")
    model.requires_grad_(False)
    for block in model.model.layers[: recipe.safety_blocks]:
        block.requires_grad_(True)
    log["aligned"] = train_stage(
        model, tokenizer, Sampler(SAFETY_MIX, "safety", recipe.seed), steps=recipe.safety_steps,
        lr=recipe.safety_lr, batch=recipe.safety_batch, weight_decay=recipe.weight_decay,
        seed=recipe.seed + 1, label="safety",
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
