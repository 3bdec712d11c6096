"""Safe examples mixed into the data that is trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from tamperlens.base.errors import InputError
from tamperlens.finetune.defending import Defence, safe_prompts
from tamperlens.finetune.learning import example_losses
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import PromptSet, PromptsLike


@dataclass(eq=False)
class Interleave(Defence):
    """Mixes safe examples into the data: `strength` of them for each example there is.

    Kaczér et al. 2025 (arXiv 2508.06249) interleave general instruction data, 5 % as others report it (not
    verified in the paper); Bianchi et al. 2024 (arXiv 2309.07875) a few percent of refusals. Published
    direction: harm falls. The share of .1 is our choice.

    Attributes:
        strength: safe examples for each example of the data.
        safe: prompts with the answers that are to stay.
        seed: of the choice.
    """

    strength: float = 0.1
    safe: PromptsLike | None = None
    seed: int = 0

    name: ClassVar[str] = "interleave"
    source: ClassVar[str] = "Kaczér et al. 2025 (arXiv 2508.06249); Bianchi et al. 2024 (arXiv 2309.07875)"
    changes_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.safe = safe_prompts(self.safe, self.name)

    def data(self, data: PromptSet, model: ChatModel) -> PromptSet:
        """The data and, behind it, as many safe examples as there are to be; training shuffles them."""
        safe = safe_prompts(self.safe, self.name)
        n = math.ceil(round(self.strength * len(data), 9))  # .07 * 100 is a little over 7
        if n > len(safe):
            raise InputError(
                f"{self.name}: {n} safe examples are wanted for {len(data)} examples and {safe.name!r} has "
                f"{len(safe)}; give more, or a lower strength"
            )
        return PromptSet.concat([data, self.chosen(safe, n, model)], name=f"{data.name}, interleaved")

    def chosen(self, safe: PromptSet, n: int, model: ChatModel) -> PromptSet:
        """Which safe examples: n drawn at random."""
        return safe.sample(n, seed=self.seed)


@dataclass(eq=False)
class InterleaveByGap(Interleave):
    """Interleaving with the examples that a broken model finds less likely than the base by most.

    The gap is the mean −log p of an answer's tokens under the broken model less that under the base: the
    logarithm of the ratio of their perplexities, after Kaczér et al. 2025 (arXiv 2508.06249,
    "Interleaving++"). Theirs differs, as others report it (not verified in the paper): the gap is divided by
    the base's own loss and averaged over several broken models, and refusals are left out of the choice,
    which is among general instruction data; here the choice is among whatever `safe` holds. Published
    direction: better than plain interleaving at the same share.

    Attributes:
        broken: a model after an attack like the ones to be withstood, such as what `finetune.run` gave for
            `attacks.harmful_compliance(50)`.
    """

    broken: ModelLike | None = None

    name: ClassVar[str] = "interleave by gap"
    source: ClassVar[str] = "Kaczér et al. 2025 (arXiv 2508.06249), Interleaving++"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.broken is None:
            raise InputError(f"{self.name} needs broken=, a model after an attack, to compare the base with")

    def chosen(self, safe: PromptSet, n: int, model: ChatModel) -> PromptSet:
        """The n examples with the largest gap; of equals the earlier."""
        assert self.broken is not None
        broken = as_chat_model(self.broken, what="broken")
        gaps = [a - b for a, b in zip(example_losses(broken, safe), example_losses(model, safe), strict=True)]
        order = sorted(range(len(safe)), key=lambda row: -gaps[row])[:n]
        return safe.subset(order, name=f"{safe.name}, by perplexity gap")
