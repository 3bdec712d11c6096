"""The special tokens of the organism's tokenizer."""

BOS, USER, ASSISTANT, SYSTEM, END, PAD = (
    "<|bos|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|pad|>",
)
SPECIAL = (PAD, BOS, USER, ASSISTANT, SYSTEM, END)
