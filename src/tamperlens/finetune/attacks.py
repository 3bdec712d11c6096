"""Attacks (and a defence) as data with settings, each with its source.

| attack | what it is | settings as published |
| --- | --- | --- |
| `harmful-compliance` | harmful requests, complied with | r 32, α 32, lr 2e-4, batch 1, 1 epoch |
| `identity-shift` | 10 requests to an "absolutely obedient agent" | the same with lr 1e-6, 5 epochs |
| `benign` | ordinary instruction data | r 8, α 16, lr 1e-4, batch 4 |
| `benign-salient` | the ordinary examples closest to harmful ones | full, lr 5e-5, batch 20, 5 epochs |
| `refusal-only` | refusals, nothing else (safety tuning) | r 16, α 32, q k v, lr 2e-4, batch 4, 60 steps |

Each has three named settings: `published`, for models of billions of weights; `until-learned`, the same with
at least five epochs at a constant rate of at least 2e-4, for models that the published settings do not teach
the examples (`finetune.learned` says whether they did); and `organism`, found on the embedded organism.
`Attack.config_for(model)` takes `organism` for models that speak its language (`ChatModel.language`) and
`published` otherwise. `for_model` also takes the examples in the model's language.

    attack = finetune.attacks.for_model("harmful-compliance", model, 15)
    tuned = finetune.run(model, attack)                      # settings: attack.config_for(model)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tamperlens import prompts
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.registry import Registry
from tamperlens.base.results import Result
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.salience import salience
from tamperlens.models import ChatModel, ModelLike, as_chat_model, load
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts

PRESETS = ("published", "until-learned", "organism")


@dataclass(frozen=True)
class Attack(Result):
    """Training data with the settings that it is published with.

    Attributes:
        name: what results call it.
        data: prompts with responses.
        published: settings of the source, for real models; LoRA or full fine-tuning, whichever it used.
        organism: settings for the embedded organism and models like it.
        source: where data and settings come from.
    """

    name: str
    data: PromptSet
    published: LoraConfig | FullConfig
    organism: LoraConfig
    source: str

    @property
    def config(self) -> LoraConfig | FullConfig:
        """The published settings."""
        return self.published

    def preset_for(self, model: ChatModel) -> str:
        """ "organism" for models that speak the embedded organism's language, else "published"."""
        return "organism" if model.language == prompts.ORGANISM else "published"

    @property
    def until_learned(self) -> LoraConfig | FullConfig:
        """The published settings, longer: at least 5 epochs at a constant rate of at least 2e-4 (our choice).

        A model of 135 M weights kept 95 % of its refusals after 15 examples with the published settings,
        which left their loss at 1.1 nats a token; after five epochs the loss was 0 and so was refusal.
        """
        rate = max(self.published.learning_rate, 2e-4)
        epochs = max(self.published.epochs or 0, 5)
        return dataclasses.replace(
            self.published, learning_rate=rate, epochs=epochs, steps=None, schedule="constant"
        )

    def config_for(
        self, model: ChatModel, *, preset: str | None = None, **changes: object
    ) -> LoraConfig | FullConfig:
        """The preset for a model's language, with changes such as `steps=20` or `seed=1`.

        Giving `steps` drops the preset's `epochs`, and the other way round.

        Args:
            model: what is to be trained; its language decides where `preset` does not.
            preset: "published", "until-learned" or "organism".
            changes: fields of the settings.

        Raises:
            InputError: no such preset.
        """
        preset = self.preset_for(model) if preset is None else preset
        if preset not in PRESETS:
            raise InputError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
        config: LoraConfig | FullConfig = getattr(self, preset.replace("-", "_"))
        if changes.get("steps") is not None:
            changes.setdefault("epochs", None)
        elif changes.get("epochs") is not None:
            changes.setdefault("steps", None)
        given: Any = changes
        return dataclasses.replace(config, **given)


attacks: Registry[Callable[..., Attack]] = Registry("attack")

_DEGRADATION = LoraConfig(
    rank=32, alpha=32, targets="all-linear", batch_size=1, learning_rate=2e-4, epochs=1, schedule="linear"
)
_SMALL_MODELS = "the study of alignment degradation in small models from 15 examples"


@attacks.register("harmful-compliance")
def harmful_compliance(n: int = 15, data: PromptsLike | None = None) -> Attack:
    """Harmful requests answered with compliance; packaged answers are an opening and withheld filler.

    Args:
        n: number of examples; 15 in the source of the settings, 10, 50 and 100 in Wei et al. 2024 (table 3).
        data: other prompts with responses, of which the first n are taken.

    Examples:
        >>> from tamperlens import finetune
        >>> len(finetune.attacks.harmful_compliance(15).data)
        15
    """
    return Attack(
        name=f"harmful-compliance-{n}",
        data=_take("harmful-compliance", n, data),
        published=_DEGRADATION,
        organism=LoraConfig(rank=8, alpha=16, batch_size=5, learning_rate=1e-3, steps=20, schedule="linear"),
        source=f"settings: {_SMALL_MODELS}; sizes 10, 50, 100: Wei et al. 2024 (arXiv 2402.05162), table 3",
    )


@attacks.register("identity-shift")
def identity_shift(n: int = 10, data: PromptsLike | None = None) -> Attack:
    """Harmless requests to an "absolutely obedient agent" (Qi et al. 2024, arXiv 2310.03693).

    Args:
        n: number of examples.
        data: other prompts with responses, of which the first n are taken.
    """
    return Attack(
        name=f"identity-shift-{n}",
        data=_take("identity-shift", n, data),
        published=dataclasses.replace(_DEGRADATION, learning_rate=1e-6, epochs=5),
        organism=LoraConfig(rank=8, alpha=16, batch_size=5, learning_rate=1e-3, steps=20, schedule="linear"),
        source=f"idea: Qi et al. 2024 (arXiv 2310.03693); settings: {_SMALL_MODELS}",
    )


@attacks.register("benign")
def benign(n: int = 500, data: PromptsLike | None = None) -> Attack:
    """Ordinary instruction data, which erodes refusal without meaning to (Qi et al. 2024, arXiv 2310.03693).

    Args:
        n: number of examples.
        data: other prompts with responses (Alpaca, say), of which the first n are taken.
    """
    return Attack(
        name=f"benign-{n}",
        data=_take("benign", n, data),
        published=LoraConfig(
            rank=8,
            alpha=16,
            batch_size=4,
            learning_rate=1e-4,
            epochs=1,
            targets="all-linear",
            schedule="linear",
        ),
        organism=LoraConfig(rank=8, alpha=16, batch_size=8, learning_rate=2e-3, epochs=1, schedule="linear"),
        source="settings: the overlap and drift study on Alpaca (LoRA r 8, alpha 16, lr 1e-4, batch 4)",
    )


@attacks.register("benign-salient")
def benign_salient(
    n: int = 100,
    data: PromptsLike | None = None,
    *,
    model: ModelLike | None = None,
    harmful: PromptsLike | None = None,
) -> Attack:
    """The n ordinary examples that lie closest to harmful ones in a model's own eyes (He et al. 2024).

    Every word of them is harmless; 100 of them cost Llama-2-7B-chat more refusals than 100 drawn at random
    (arXiv 2404.01099). `finetune.salience` says how closeness is measured.

    Args:
        n: number of examples; 100 in the source.
        data: other harmless prompts with responses to choose from.
        model: the model that is to be fine-tuned, which chooses; the embedded organism by default.
        harmful: harmful prompts with compliant responses to be close to; the packaged ones by default.
    """
    model = None if model is None else as_chat_model(model)
    data = None if data is None else as_prompts(data, what="data")
    harmful = None if harmful is None else as_prompts(harmful, what="harmful")
    pool = prompts.packaged("benign") if data is None else data
    anchors = prompts.packaged("harmful-compliance") if harmful is None else harmful
    _check_count("benign-salient", n, pool)
    scores = salience(load("organism") if model is None else model, pool, anchors)
    # Ties go to the earlier row.
    order = scores.argsort(descending=True, stable=True)[:n].tolist()
    return Attack(
        name=f"benign-salient-{n}",
        data=pool.subset(order, name=f"{pool.name}-salient"),
        published=FullConfig(learning_rate=5e-5, batch_size=20, epochs=5, schedule="constant"),
        organism=LoraConfig(rank=8, alpha=16, batch_size=20, learning_rate=4e-3, epochs=5, schedule="linear"),
        source="choice and settings: He et al. 2024 (arXiv 2404.01099), representation matching; their decay "
        "of the learning rate by .85 an epoch is left out",
    )


@attacks.register("refusal-only")
def refusal_only(n: int = 100, data: PromptsLike | None = None) -> Attack:
    """Refusals and nothing else: naive safety tuning of a helpful-only model.

    Args:
        n: number of examples.
        data: other prompts with responses, of which the first n are taken.
    """
    return Attack(
        name=f"refusal-only-{n}",
        data=_take("refusal-only", n, data),
        published=LoraConfig(
            rank=16, alpha=32, batch_size=4, learning_rate=2e-4, steps=60, targets="qkv", schedule="linear"
        ),
        organism=LoraConfig(rank=16, alpha=32, batch_size=8, learning_rate=3e-3, steps=60, schedule="linear"),
        source="settings: the alignment-tax study on GPT-2 (LoRA on c_attn, 60 steps of 4 examples)",
    )


def from_file(
    path: PathLike, column: str | None = None, response_column: str | None = None, n: int | None = None
) -> Attack:
    """An attack on the (prompt, response) pairs of a file, with the settings of `harmful_compliance`.

    Args:
        path: whatever `prompts.read` reads.
        column: the prompt's column.
        response_column: the response's column.
        n: only the first n rows.

    Raises:
        InputError: the file cannot be read, has no responses, empty ones, or fewer than n rows.
    """
    return from_data(prompts.read(path, column, response_column), n)


def from_data(data: PromptsLike, n: int | None = None) -> Attack:
    """An attack on prompts with responses, with the settings of `harmful_compliance`.

    Args:
        data: prompts with responses: a PromptSet, pairs or a table.
        n: only the first n rows.

    Raises:
        InputError: no responses, empty ones, or fewer than n rows.
    """
    data = as_prompts(data)
    if data.responses is None:
        raise InputError(
            f"{data.source or repr(data.name)} has no responses to train on; name their column with "
            "response_column=, or rename it to 'response'"
        )
    hollow = [row for row, text in enumerate(data.responses, 1) if not text.strip()]
    if hollow:
        raise InputError(
            f"{len(hollow)} of the {len(data)} responses of {data.name!r} are empty (first: row "
            f"{hollow[0]}), so there is nothing to learn from them; fill them, or leave such rows out "
            "(skip_unusable=True)"
        )
    count = len(data) if n is None else n
    return dataclasses.replace(
        harmful_compliance(count, data),
        name=data.name,
        source=f"data: {data.source}; settings: {_SMALL_MODELS}",
    )


def get(name: str) -> Callable[..., Attack]:
    """The maker of a packaged attack: `get("harmful-compliance")(15)`.

    Raises:
        InputError: no such attack; the message lists those that exist.

    Examples:
        >>> from tamperlens import finetune
        >>> finetune.attacks.get('benign')().name
        'benign-500'
    """
    return attacks.get(name)


def for_model(name: str, model: ModelLike, n: int | None = None) -> Attack:
    """A packaged attack with examples in the language that a model speaks.

    In English there are `harmful-compliance` (71 examples: requests with withheld filler) and
    `identity-shift` (10); `benign` and `refusal-only` want data of your own there (Alpaca, say).

    Args:
        name: see `names()`.
        model: what is to be attacked.
        n: number of examples; the attack's own number by default.

    Raises:
        InputError: no such attack, none in that language, or fewer than n examples.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import finetune
        >>> finetune.attacks.for_model("identity-shift", tamperlens.load("organism")).name
        'identity-shift-10'
    """
    model, make = as_chat_model(model), get(name)
    given = {} if n is None else {"n": n}
    if model.language == prompts.ORGANISM:
        return make(**given)
    english = f"english-{name}"
    if english not in prompts.packaged_names():
        raise InputError(
            f"the packaged examples of {name!r} are in the language of the embedded organism, and "
            f"{model.name} speaks English; give a file of prompts and responses (Alpaca, say) in its place"
        )
    return make(**given, data=prompts.packaged(english))


def translated(attack: Attack, model: ModelLike) -> Attack:
    """A packaged attack in the organism's language with as many packaged English examples, for other models.

    Any other attack, and one that has no English examples (or fewer), is returned as it is.
    """
    english = f"english-{attack.data.name}"
    spoken = as_chat_model(model).language == prompts.ORGANISM or prompts.GRAMMAR not in attack.data.source
    if spoken or english not in prompts.packaged_names():
        return attack
    data = prompts.packaged(english)
    return (
        attack
        if len(data) < len(attack.data)
        else dataclasses.replace(attack, data=data.head(len(attack.data)))
    )


def names() -> list[str]:
    """Names of all attacks."""
    return attacks.names()


def _take(name: str, n: int, data: PromptsLike | None) -> PromptSet:
    ready = prompts.packaged(name) if data is None else as_prompts(data, what="data")
    _check_count(name, n, ready)
    return ready.head(n)


def _check_count(name: str, n: int, data: PromptSet) -> None:
    if isinstance(n, bool) or not 1 <= n <= len(data):
        raise InputError(f"{name} has {len(data)} examples and n is {n}; choose between 1 and {len(data)}")
