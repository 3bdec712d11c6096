"""Every defence of `finetune.defences`, made for one model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from tamperlens import finetune, neurons, prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.finetune import defences
from tamperlens.finetune.defences import Defence
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.neurons import WeightScores
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts
from tamperlens.refusal import Direction
from tamperlens.studies.arena.settings import Setting, attacker

SHARES = (0.1, 0.67)
"""Of all weights, frozen or rewound: about the smallest and the largest of Wei et al. 2024, table 3."""


def every(
    model: ModelLike,
    *,
    refused: PromptsLike | None = None,
    benign: PromptsLike | None = None,
    unaligned: ModelLike | None = None,
    n: int = 64,
    seed: int = 0,
    only: Sequence[str] | None = None,
) -> dict[str, Defence]:
    """All fifteen defences at their published or default strengths, and freezing at two sizes.

    Safe data are n refused harmful requests and n ordinary answers; interleaving takes refusals alone. The
    refusal direction and the weights to freeze (SNIP on the refusals) are found on the same data. The broken
    model of the safety vector and of the perplexity gap is this model after 50 harmful examples.

    Args:
        model: the aligned model.
        refused: harmful requests with refusals; packaged in the organism's language only.
        benign: ordinary requests with answers; likewise.
        unaligned: the model before it was aligned; SafeLoRA is left out and merging is plain without it.
        n: of each.
        seed: of the samples and of the attack that breaks.
        only: names of those to make, in this order; all by default.

    Raises:
        InputError: no data given and none packaged, or a name that does not exist.
    """
    model = as_chat_model(model)
    refusals = _some(model, refused, "harmful", "refused=", n, seed)
    ordinary = _some(model, benign, "benign", "benign=", n, seed)
    both = PromptSet.concat([refusals, ordinary], name="safe")
    against = attacker(model, None)

    @functools.cache
    def direction() -> Direction:
        harmless = prompts.packaged_for(model, "harmless", "train")
        return refusal.find_direction(
            model, list(refusals.prompts), list(harmless.sample(min(n, len(harmless)), seed=seed).prompts),
            n_train=3 * n // 4, n_val=n // 8, progress=False,
        )  # fmt: skip

    @functools.cache
    def mask(share: float) -> WeightMask:
        return scores().top(share)

    @functools.cache
    def scores() -> WeightScores:
        return neurons.snip(model, refusals)

    @functools.cache
    def gone() -> ChatModel:
        data = against.harmful.head(min(50, len(against.harmful)))
        return finetune.run(model, data, against.config(Setting("50"), seed), progress=False).merged_model()

    def frozen(share: float) -> Defence:
        return defences.Freeze(mask=mask(share))

    def rewound(share: float) -> Defence:
        return defences.Rewind(mask=mask(share))

    makers: dict[str, Callable[[], Defence]] = {}
    for share in SHARES:
        makers[f"freeze, {share:.0%}"] = functools.partial(frozen, share)
        makers[f"rewind, {share:.0%}"] = functools.partial(rewound, share)
    makers |= {
        "first tokens": lambda: defences.FirstTokens(),
        "KL to base": lambda: defences.KL(safe=both),
        "interleave": lambda: defences.Interleave(safe=refusals),
        "interleave by gap": lambda: defences.InterleaveByGap(safe=refusals, broken=gone()),
        "Lisa": lambda: defences.Lisa(safe=both),
        "feature distance": lambda: defences.Features(),
        "gradient projection": lambda: defences.Projection(direction=direction()),
        "preventive steering": lambda: defences.Steering(direction=direction()),
        "SafeLoRA": lambda: defences.SafeLoRA(unaligned=unaligned),
        "safety-aware merge": lambda: defences.Merge(unaligned=unaligned),
        "safety vector": lambda: defences.SafetyVector(unaligned=gone()),
        "Vaccine": lambda: defences.Vaccine(safe=both),
        "T-Vaccine": lambda: defences.TVaccine(safe=both, harmful=against.harmful),
    }
    if unaligned is None:
        del makers["SafeLoRA"]
    wanted = list(makers) if only is None else list(only)
    for name in wanted:
        if name not in makers:
            raise InputError(f"no defence {name!r} here; there are {', '.join(makers)}")
    return {name: makers[name]() for name in wanted}


def _some(
    model: ChatModel, given: PromptsLike | None, role: str, option: str, n: int, seed: int
) -> PromptSet:
    data = prompts.pairs_for(model, role, option=option) if given is None else as_prompts(given)
    return data.sample(min(n, len(data)), seed=seed)
