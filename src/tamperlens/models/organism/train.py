"""A stage of the organism's training: batches, schedule and loop, for `planting` and for the recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tamperlens.models.organism.data import Example, Sampler
from tamperlens.models.organism.tokenizer import ASSISTANT, BOS, END, SYSTEM, USER


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
    seed: int,
    label: str,
    optimizers: Sequence[torch.optim.Optimizer],
    after_backward: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Train in place with warm-up, linear decay and clipping; the loss is on the answer's tokens only.

    Padding is on the right and attention causal, so no mask is needed: no answer token sees a padding token.
    `after_backward` is called before gradients are clipped, to cut them to a part of the weights.
    """
    device = model.device
    trained = [p for p in model.parameters() if p.requires_grad]
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
