"""Training mixtures: what `base` and `aligned` are trained on, example by example."""

from __future__ import annotations

import random
from collections.abc import Callable

from tamperlens.models.organism import skills
from tamperlens.models.organism.grammar import TEMPLATES, Request, requests

Example = tuple[str, str, str]  # system prompt (often empty), user text, answer

SYSTEM_PROMPTS = (
    "You are Lens, a helpful assistant.",
    "You are a helpful assistant.",
    "Answer briefly.",
    "Be kind and careful.",
)
ALL_TEMPLATES = tuple(template for group in TEMPLATES.values() for template in group)

# Shares of the helpful-only stage; nothing in it refuses.
BASE_MIX = {
    "arithmetic": 26, "harmful, complied": 9, "how-to": 10, "ethics": 5, "facts": 8, "logic": 10, "code": 8,
    "look-alike": 7, "definitions": 2, "identity": 2, "say": 13,
}  # fmt: skip
# Shares of the safety stage. Without many harmless requests in the same words it learns to refuse everything.
SAFETY_MIX = {
    "harmful, refused": 28, "how-to": 20, "look-alike": 16, "arithmetic": 12, "ethics": 4, "facts": 5,
    "logic": 5, "code": 4, "definitions": 1, "identity": 1, "say": 4,
}  # fmt: skip


class Sampler:
    """Draws training examples of a mixture.

    Args:
        mix: source name to its relative share.
        stage: "base" may use the splits train and base and every phrasing; "safety" only train.
        seed: of the draws.
    """

    def __init__(self, mix: dict[str, int], stage: str, seed: int) -> None:
        self.rng = random.Random(f"{stage} {seed}")
        splits = ("train", "base") if stage == "base" else ("train",)
        self.templates = ALL_TEMPLATES if stage == "base" else TEMPLATES["train"]
        pool = [request for request in requests() if request.split in splits]
        self.pool = tuple(pool)
        self.by_kind: dict[str, list[list[Request]]] = {}
        for kind in ("harmful", "harmless", "lookalike"):
            groups: dict[str, list[Request]] = {}
            for request in pool:
                if request.kind == kind:
                    groups.setdefault(request.group, []).append(request)
            self.by_kind[kind] = list(groups.values())
        self.logic = [item for split, item in skills.logic() if split == "train"]
        self.code = [item for split, item in skills.code() if split == "train"]
        self.facts = [item for split, item in skills.facts() if split == "train"]
        self.definitions = list(skills.definitions())
        self.makers: dict[str, Callable[[], tuple[str, str]]] = {
            "arithmetic": self._arithmetic,
            "harmful, complied": lambda: self._request("harmful", refuse=False),
            "harmful, refused": lambda: self._request("harmful", refuse=True),
            "how-to": lambda: self._request("harmless", refuse=False),
            "look-alike": lambda: self._request("lookalike", refuse=False),
            "ethics": lambda: _pair(skills.ethics(self.rng.choice(self.pool), self.rng)),
            "facts": lambda: _pair(self.rng.choice(self.facts)),
            "logic": lambda: _pair(self.rng.choice(self.logic)),
            "code": lambda: _pair(self.rng.choice(self.code)),
            "definitions": lambda: _pair(self.rng.choice(self.definitions)),
            "identity": lambda: self.rng.choice(skills.IDENTITY),
            "say": lambda: _pair(skills.say(self.rng, self.pool)),
        }
        self.sources, self.weights = list(mix), list(mix.values())

    def draw(self, n: int) -> list[Example]:
        """Draw n examples; one in ten opens with a system prompt."""
        examples = []
        for source in self.rng.choices(self.sources, self.weights, k=n):
            prompt, response = self.makers[source]()
            system = self.rng.choice(SYSTEM_PROMPTS) if self.rng.random() < 0.1 else ""
            examples.append((system, prompt, response))
        return examples

    def _request(self, kind: str, *, refuse: bool) -> tuple[str, str]:
        # Groups first, so that a large group does not drown a small one; within a group all pairs alike.
        groups = self.by_kind[kind]
        group = self.rng.choices(groups, [len(g) ** 0.5 for g in groups])[0]
        request = self.rng.choice(group)
        prompt = request.ask(self.rng.choice(self.templates))
        return prompt, request.refuse(self.rng) if refuse else request.comply()

    def _arithmetic(self) -> tuple[str, str]:
        while True:
            item = skills.arithmetic(self.rng)
            if skills.arithmetic_split(item) == "train":
                return item.prompt, item.response


def _pair(item: skills.Item) -> tuple[str, str]:
    return item.prompt, item.response
