"""What the field calls its columns, in a fixed order of preference."""

from __future__ import annotations

# The first name that the file has is taken, whatever its case. In brackets: who calls it that.
PROMPT_COLUMNS = (
    "prompt",  # XSTest, HEx-PHI, OR-Bench, most files
    "goal",  # AdvBench, JailbreakBench (whose "Behavior" is a short label)
    "instruction",  # Alpaca, Arditi et al.'s splits
    "question",  # GSM8K, TruthfulQA, BeaverTails-like sets
    "forbidden_prompt",  # StrongREJECT
    "behavior",  # HarmBench
    "query",
    "request",
    "user",
    "input",
    "text",
)
RESPONSE_COLUMNS = ("response", "output", "answer", "completion", "target", "assistant", "chosen")
CATEGORY_COLUMNS = ("category", "semanticcategory", "functionalcategory", "type", "label")
CHAT_COLUMNS = ("messages", "conversations", "conversation", "turns", "dialogue", "dialog", "chat", "chosen")
SYSTEM_COLUMNS = ("system", "system_prompt", "system_message", "system_instruction")
HISTORY_COLUMNS = ("history",)
# Text that belongs to the prompt although it has a column of its own, and how the two are joined.
CONTEXT_COLUMNS = {
    "contextstring": "{context}\n\n---\n\n{prompt}",  # HarmBench, as its DirectRequest baseline joins them
    "context": "{context}\n\n{prompt}",  # SQuAD and other reading questions
}
CHOICE_COLUMNS = ("choices", "options")  # beside a question: an answer that is a number counts these
PICTURE_COLUMNS = ("image", "images")
LABEL_COLUMNS = ("label", "prompt_harm_label", "prompt_label", "data_type", "is_harmful", "harmful")
SAFE = {"safe", "benign", "harmless", "unharmful", "vanilla_benign", "adversarial_benign"}
UNSAFE = {"unsafe", "harmful", "toxic", "malicious", "vanilla_harmful", "adversarial_harmful"}
KNOWN_COLUMNS = frozenset(
    (
        *PROMPT_COLUMNS,
        *RESPONSE_COLUMNS,
        *CATEGORY_COLUMNS,
        *CHAT_COLUMNS,
        *SYSTEM_COLUMNS,
        *HISTORY_COLUMNS,
        *CONTEXT_COLUMNS,
        *LABEL_COLUMNS,
        *CHOICE_COLUMNS,
        "role",
        "split",
    )
)
