"""How far apart two directions of the same model are by chance: split halves and the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.directions import geometry
from tamperlens.directions.cache import ActivationCache, fetch
from tamperlens.directions.candidates import ZERO, batches, check_disjoint, check_positions
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, hash_prompts, prompt_name, prompt_texts
from tamperlens_hooks import read_positions

FEWEST = 8
HALVES, BOOTSTRAP = "split halves", "bootstrap"


@dataclass(frozen=True)
class DirectionNull(Result):
    """Cosines between directions from random parts of the same prompts: what sampling alone does.

    "split halves": each draw cuts the harmful and the harmless prompts into two halves, takes the difference
    of means of each, and compares the two. Halves are noisier than full sets, so this null is wider than
    that between two directions from full sets; `full_size` corrects the mean for that.
    "bootstrap": each draw resamples both sets twice with replacement, at full size.

    Attributes:
        cosines: one per draw, `[n_draws]` float64.
        layer: block whose input was read.
        position: token position, negative from the end.
        n_harmful: harmful prompts.
        n_harmless: harmless prompts.
        seed: of the draws.
        model: name of the model.
        fingerprint: its fingerprint.
        harmful_sha256: hash of the harmful prompts.
        harmless_sha256: hash of the harmless prompts.
        kind: "split halves" or "bootstrap".
    """

    cosines: Tensor
    layer: int
    position: int
    n_harmful: int
    n_harmless: int
    seed: int
    model: str
    fingerprint: str
    harmful_sha256: str
    harmless_sha256: str
    kind: str = HALVES

    def summary(self) -> str:
        """What the cosine is by sampling alone."""
        return (
            f"By sampling alone ({self.kind}) the cosine at layer {self.layer}, position "
            f"{self.position} is {self.estimate}."
        )

    @property
    def estimate(self) -> Estimate:
        """Mean cosine with the central 95 % of the draws; n is the number of prompts of the smaller set."""
        return band(self.cosines, min(self.n_harmful, self.n_harmless), self.kind)

    @property
    def full_size(self) -> float:
        """Expected cosine between directions from two fresh full-size sets: 2c / (1 + c) (Spearman–Brown).

        The bootstrap's own mean where the draws were of full size already.
        """
        mean = self.estimate.value
        return mean if self.kind == BOOTSTRAP else 2 * mean / (1 + mean)

    def to_frame(self) -> pd.DataFrame:
        """One row per draw: draw, cosine, angle_degrees, layer, position, model."""
        cosines = self.cosines.tolist()
        return pd.DataFrame(
            {
                "draw": range(len(cosines)),
                "cosine": cosines,
                "angle_degrees": [geometry.degrees(one) for one in cosines],
                "layer": self.layer,
                "position": self.position,
                "model": self.model,
            }
        )


SplitHalfNull = DirectionNull


@renamed_arguments(n_draws="draws")
def split_half_null(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    *,
    draws: int = 200,
    seed: int = 0,
    cache: ActivationCache | None = None,
) -> DirectionNull:
    """How much two directions at one place differ when nothing but the prompts' sampling differs.

    Args:
        model: any chat model.
        harmful: harmful prompts, 8 at least; each draw gives half of them to each side.
        harmless: harmless prompts, 8 at least.
        layer: block whose input is read.
        position: negative token position from the end.
        draws: random halvings.
        seed: of the halvings.
        cache: where activations are kept between calls.

    Raises:
        InputError: too few prompts, prompts in both sets, or a place that does not exist.
        NumericsError: activations are NaN or infinite.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> null = directions.split_half_null(model, harmful, harmless, 2, -1, draws=20)
        >>> len(null.cosines), bool(null.cosines.max() < 1)
        (20, True)
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    return _null(HALVES, model, harmful, harmless, layer, position, draws, seed, cache)


@renamed_arguments(n_draws="draws")
def bootstrap_null(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    *,
    draws: int = 200,
    seed: int = 0,
    cache: ActivationCache | None = None,
) -> DirectionNull:
    """As `split_half_null`, between two resamples (with replacement) of all prompts in each draw.

    Arguments and errors are the same. The resamples are of full size but share prompts and centre on the
    sample's own direction, so this null is the narrower one: about that of two fresh sets of this size.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    return _null(BOOTSTRAP, model, harmful, harmless, layer, position, draws, seed, cache)


def _null(
    kind: str,
    model: ChatModel,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    n_draws: int,
    seed: int,
    cache: ActivationCache | None,
) -> DirectionNull:
    check_disjoint(harmful, harmless)
    check_enough(harmful, harmless)
    bad = activations_at(model, prompt_texts(harmful), layer, position, cache=cache)
    good = activations_at(model, prompt_texts(harmless), layer, position, cache=cache)
    return DirectionNull(
        null_cosines(bad, good, kind=kind, n_draws=n_draws, seed=seed),
        layer,
        position,
        len(bad),
        len(good),
        seed,
        model.name,
        model.fingerprint,
        hash_prompts(prompt_texts(harmful)),
        hash_prompts(prompt_texts(harmless)),
        kind,
    )


def check_enough(harmful: Prompts, harmless: Prompts) -> None:
    """Refuse sets that are too small to be halved.

    Raises:
        InputError: names the set.
    """
    for kind, data in (("harmful", harmful), ("harmless", harmless)):
        count = len(prompt_texts(data))
        if count < FEWEST:
            raise InputError(
                f"{kind} prompts {prompt_name(data)!r}: {count} are too few for halves; pass {FEWEST} or more"
            )


def null_cosines(
    bad: Float64[Tensor, "n d"], good: Float64[Tensor, "m d"], *, kind: str, n_draws: int, seed: int
) -> Float64[Tensor, " draws"]:
    """Cosine of the two directions of each draw; NaN where the means do not differ."""
    generator = torch.Generator().manual_seed(seed)
    sides = pairs_of_weights(len(bad), n_draws, kind, generator)
    others = pairs_of_weights(len(good), n_draws, kind, generator)
    first, second = (a @ bad - b @ good for a, b in zip(sides, others, strict=True))
    scale = ZERO * max(float(bad.mean(0).norm()), float(good.mean(0).norm()))
    norms = first.norm(dim=-1), second.norm(dim=-1)
    small = torch.minimum(*norms) <= scale
    cosines = ((first * second).sum(-1) / (norms[0] * norms[1])).clamp(-1, 1)
    return torch.where(small, torch.full_like(cosines, math.nan), cosines)


def pairs_of_weights(
    n: int, draws: int, kind: str, generator: torch.Generator
) -> tuple[Float64[Tensor, "draws n"], Float64[Tensor, "draws n"]]:
    """Averaging weights of two random parts of n prompts per draw: disjoint halves, or two resamples."""
    if kind == HALVES:
        return halves(n, draws, generator)
    return resamples(n, draws, generator), resamples(n, draws, generator)


def halves(
    n: int, draws: int, generator: torch.Generator
) -> tuple[Float64[Tensor, "draws n"], Float64[Tensor, "draws n"]]:
    """Averaging weights of two disjoint random halves per draw; the second holds the odd prompt."""
    order = torch.rand(draws, n, generator=generator).argsort(1)
    half = max(n // 2, 1)
    first, second = torch.zeros(2, draws, n, dtype=torch.float64)
    first.scatter_(1, order[:, :half], 1 / half)
    second.scatter_(1, order[:, half:], 1 / max(n - half, 1))
    return first, second


def resamples(n: int, draws: int, generator: torch.Generator) -> Float64[Tensor, "draws n"]:
    """Bootstrap weights: how often each prompt is drawn, over n."""
    picks = torch.randint(n, (draws, n), generator=generator)
    counts = torch.zeros(draws, n, dtype=torch.float64)
    return counts.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64)) / n


def unturned_cosine(
    base: Float64[Tensor, " d"],
    tuned: Float64[Tensor, " d"],
    base_draws: Float64[Tensor, "draws d"],
    tuned_draws: Float64[Tensor, "draws d"],
    n: int,
) -> float:
    """Least cosine of two checkpoints on the same prompts while the direction turns on average nowhere.

    The turn is t = b̂ − â, the difference of the unit directions. Resampling the same prompts on both sides
    gives t*; |t* − t|, to first order, is how far chance takes a turn of zero (the bootstrap centred on its
    null, Hall & Wilson 1991), and the cosine at its 95 % quantile c is 1 − c²/2. Read on the same prompts,
    "no change" alone would be a cosine of exactly 1, which any step of training leaves.

    Args:
        base: difference of means of the base.
        tuned: of the other checkpoint, same prompts.
        base_draws: of the base by resample.
        tuned_draws: of the other checkpoint, the same resamples.
        n: prompts of the smaller set; resamples are too narrow by n − 1 in n.
    """

    def across(draws: Tensor, at: Tensor) -> Tensor:
        """To first order how resampling moves the unit direction: resampled lengths are too great."""
        unit = at / at.norm()
        strays = draws - at
        moved: Tensor = (strays - (strays @ unit)[:, None] * unit) / at.norm()
        return moved

    strays = (across(tuned_draws, tuned) - across(base_draws, base)).norm(dim=-1)
    chord = float(strays.quantile(0.95)) * math.sqrt(n / max(n - 1, 1))
    return 1 - chord**2 / 2


def band(draws: Float64[Tensor, " draws"], n: int, kind: str) -> Estimate:
    """Mean and central 95 % of what the draws gave."""
    finite = draws[torch.isfinite(draws)]
    if not len(finite):
        return undefined("harmful and harmless means do not differ here")
    low, high = (float(finite.quantile(q)) for q in (0.025, 0.975))
    return Estimate(float(finite.mean()), low, high, n, f"{kind}, {len(finite)} draws, central 95%")


def activations_at(
    model: ModelLike,
    prompts: Sequence[str],
    layer: int,
    position: int,
    *,
    cache: ActivationCache | None = None,
) -> Float64[Tensor, "n d_model"]:
    """Block input of each prompt at one layer and position, on the CPU.

    Raises:
        InputError: a layer or position that does not exist.
        NumericsError: activations are NaN or infinite.
    """
    model = as_chat_model(model)
    return activations(model, prompts, position, [layer], cache=cache)[0]


def activations(
    model: ModelLike,
    prompts: Sequence[str],
    position: int,
    layers: Sequence[int] | None = None,
    *,
    cache: ActivationCache | None = None,
) -> Float64[Tensor, "layer n d_model"]:
    """Block inputs of each prompt at one position and several layers, on the CPU, in the prompts' order.

    Args:
        model: any chat model.
        prompts: at least one.
        position: negative token position from the end.
        layers: blocks; all by default.
        cache: where they are kept between calls.

    Raises:
        InputError: a layer or position that does not exist, or no prompts.
        NumericsError: activations are NaN or infinite.
    """
    model = as_chat_model(model)
    wanted = list(range(model.n_layers)) if layers is None else [int(layer) for layer in layers]
    for layer in wanted:
        if not 0 <= layer < model.n_layers:
            raise InputError(
                f"layer {layer} does not exist: {model.name} has blocks 0 to {model.n_layers - 1}"
            )
    places = check_positions([position])
    if not len(prompts):
        raise InputError("there are no prompts to read; pass at least one")

    def read() -> Tensor:
        made, order = batches(model, prompts, -min(places))
        rows = read_positions(model, made, positions=places, layers=wanted, site="resid_pre")[:, 0]
        found = torch.empty_like(rows)
        found[order] = rows
        return found.transpose(0, 1).contiguous()

    found = fetch(cache, model, prompts, "activations", read, layers=wanted, positions=places).double()
    if not bool(torch.isfinite(found).all()):
        raise NumericsError(
            f"{model.name}: activations are NaN or infinite; load the model in float32 or bfloat16"
        )
    return found
