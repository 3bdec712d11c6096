"""Small random models of every supported family, and one byte-level tokenizer with a chat template.

Real transformers classes with small configurations; weights are drawn at a scale at which attention is
sharp, norms matter and biases are not zero, so that a test which mixes up two of them fails.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIALS = ("<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}"
    "{% elif m['role'] == 'system' %}{{ m['content'] }}<|end|>"
    "{% else %}<|user|>{{ m['content'] }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCAB = 264  # 5 specials + 256 bytes + 3 unused rows, as padded vocabularies have

_GQA = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 6, "num_key_value_heads": 2}
_GEMMA = dict(**_GQA, head_dim=16, sliding_window=24, query_pre_attn_scalar=16)

# family -> (model_type of transformers, its configuration). Head sizes differ from d_model / n_heads where
# the family allows it, three layers where the layer kinds alternate, MLP widths no multiple of d_model.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 112, "n_positions": 512}),
    "gpt_neox": (
        "gpt_neox",
        {
            "hidden_size": 48,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "use_parallel_residual": True,
            "hidden_act": "gelu",
        },
    ),
    "gpt_neox_sequential": (
        "gpt_neox",
        {
            "hidden_size": 48,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "use_parallel_residual": False,
            "hidden_act": "gelu",
        },
    ),
    "llama": ("llama", dict(**_GQA, num_hidden_layers=3, head_dim=8)),
    "mistral": ("mistral", dict(**_GQA, num_hidden_layers=2, head_dim=12, sliding_window=24)),
    "qwen2": ("qwen2", dict(**_GQA, num_hidden_layers=2)),
    "qwen3": ("qwen3", dict(**_GQA, num_hidden_layers=2, head_dim=16)),
    "gemma": ("gemma", dict(**{**_GQA, "num_key_value_heads": 1}, num_hidden_layers=2, head_dim=16)),
    "gemma2": ("gemma2", dict(**_GEMMA, num_hidden_layers=3)),
    "gemma3_text": (
        "gemma3_text",
        dict(
            **_GEMMA,
            num_hidden_layers=3,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
    ),
    "phi3": ("phi3", dict(**_GQA, num_hidden_layers=2)),
    "olmo2": ("olmo2", dict(**_GQA, num_hidden_layers=2)),
}
FAMILIES: tuple[str, ...] = tuple(CONFIGS)
POST_NORM_FAMILIES: tuple[str, ...] = ("gemma2", "gemma3_text", "olmo2")


def make_tokenizer(chat_template: str | None = CHAT_TEMPLATE, *, bos: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level tokenizer: ids 0-4 are `SPECIALS`, one id per byte after them. Decodes what it encodes.

    Args:
        chat_template: the Jinja template, or None for a base model's tokenizer.
        bos: False leaves `bos_token` undefined (families without one).
    """
    vocab = {token: i for i, token in enumerate((*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        bos_token="<|bos|>" if bos else None,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = (
        chat_template if bos or chat_template is None else chat_template.replace("{{ bos_token }}", "")
    )
    return tokenizer


def make_model(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any) -> Any:
    """A new small random causal language model of `family` in eval mode; same numbers for the same seed.

    Args:
        family: one of `FAMILIES`.
        seed: of the weights. The global random state is left alone.
        dtype: of the weights (drawn in fp32, then rounded).
        overrides: replace entries of the family's configuration.
    """
    model_type, settings = CONFIGS[family]
    known = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 4}
    if model_type != "gpt2":
        known["max_position_embeddings"] = 512
    config = AutoConfig.for_model(model_type, **{**known, **settings, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        spread_weights(model)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 4
    return model.to(dtype).eval()


@torch.no_grad()
def spread_weights(model: nn.Module) -> None:
    """Draw every parameter anew at a scale at which no part of the network is idle."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if parameter.ndim == 1:  # biases around 0; norm weights around their neutral value (1, or 0 in Gemma)
            neutral = parameter if "norm" in name or "ln_" in name else torch.zeros_like(parameter)
            parameter.copy_(neutral.mean() + 0.3 * noise)
        elif "emb" in name or "wte" in name or "wpe" in name:
            # Gemma multiplies its embeddings by sqrt(d_model)
            scale = 0.06 if getattr(model.config, "model_type", "").startswith("gemma") else 0.4
            parameter.copy_(scale * noise)
        else:  # Linear [out, in] or Conv1D [in, out]
            fan_in = (
                parameter.shape[0]
                if type(model.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"
                else parameter.shape[1]
            )
            parameter.copy_(1.3 * noise / fan_in**0.5)


def left_padded_batch(lengths: tuple[int, ...] = (5, 12, 31), *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random token ids of the given lengths, left-padded: input_ids, attention_mask, position_ids."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = torch.randint(5, 261, (length,), generator=generator)
        mask[row, width - length :] = 1
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
