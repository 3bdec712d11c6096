"""A direction, an update or a difference of activations, told in the features of a sparse autoencoder.

Reads a folder as SAELens saves it (`cfg.json` and `sae_weights.safetensors`); SAELens itself is not needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.files import PathLike, read_json
from tamperlens.base.results import Result
from tamperlens.directions.direction import Direction

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_BLOCK = re.compile(r"blocks\.(\d+)\.hook_resid_pre$")


@dataclass(frozen=True)
class FeatureExplanation(Result):
    """The features that lie closest to a direction.

    Attributes:
        features: one row a feature, closest first: feature (its index), cosine (of its decoder row),
            encoder_cosine (of its encoder column), explained (share of the squared length that this feature
            and those above it span together).
        chance: the 95 % quantile of the largest |cosine| that a random direction has with any of the
            features: below it a match says nothing.
        n_features: of the autoencoder.
        site: where it reads, such as "blocks.2.hook_resid_pre"; "" where it does not say.
        source: the folder.
        note: what to beware of; "" when nothing.
    """

    features: pd.DataFrame
    chance: float
    n_features: int
    site: str
    source: str
    note: str = ""

    def summary(self) -> str:
        """The finding in words."""
        first = self.features.iloc[0]
        held = "above" if abs(first["cosine"]) > self.chance else "not above"
        words = (
            f"Feature {int(first['feature'])} of {self.n_features} is closest (cosine {first['cosine']:.2f}, "
            f"{held} the {self.chance:.2f} that random directions reach); the {len(self.features)} "
            f"closest span {self.features['explained'].iloc[-1]:.0%} of the squared length."
        )
        return f"{words} {self.note}".strip()


def explain_by_features(
    direction: Direction | Float[Tensor, " d_model"] | Float[Tensor, "d_model n"],
    folder: PathLike,
    *,
    k: int = 10,
    draws: int = 200,
    seed: int = 0,
) -> FeatureExplanation:
    """Which features of a sparse autoencoder a direction is made of.

    Args:
        direction: a `Direction`; a vector, such as a difference of mean activations; or a matrix whose
            columns lie in the residual stream, such as the update of an output projection. For a matrix a
            cosine is the length of the feature's row times the matrix over the matrix's (Frobenius).
        folder: a folder with `cfg.json` and `sae_weights.safetensors`, as SAELens saves it.
        k: features to list.
        draws: random directions behind `chance`.
        seed: of them.

    Raises:
        InputError: no such folder, damaged files, another width than the direction's, or k out of range.
        NumericsError: a direction that is NaN or zero.

    Examples:
        >>> import json, tempfile, torch
        >>> from pathlib import Path
        >>> from safetensors.torch import save_file
        >>> from tamperlens import directions
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "cfg.json").write_text(json.dumps({"d_in": 4, "d_sae": 4}))
        >>> save_file({"W_dec": torch.eye(4), "W_enc": torch.eye(4)}, folder / "sae_weights.safetensors")
        >>> found = directions.explain_by_features(torch.tensor([0.0, 0.0, -2.0, 0.0]), folder, k=1)
        >>> found.features["feature"].tolist(), found.features["cosine"].tolist()
        ([2], [-1.0])
    """
    vector = direction.vector if isinstance(direction, Direction) else direction
    wide = vector.detach().double().cpu().reshape(len(vector), -1)
    if not torch.isfinite(wide).all() or not wide.any():
        raise NumericsError("the direction is zero or not finite; there is nothing to explain")
    config, decoder, encoder = _read(Path(folder))
    n, width = decoder.shape
    if width != len(wide):
        raise InputError(
            f"the autoencoder in {folder} reads {width} dimensions and the direction has {len(wide)}; "
            "they are not of one model"
        )
    if not 1 <= k <= n:
        raise InputError(f"k={k} must be from 1 to the {n} features")
    wide = wide / wide.norm()
    rows = _unit(decoder)
    found = rows @ wide
    scores = found[:, 0] if wide.shape[1] == 1 else found.norm(dim=1)
    best = scores.abs().argsort(descending=True, stable=True)[:k]
    read = _unit(encoder) @ wide
    basis, _ = torch.linalg.qr(rows[best].T)  # the first j columns span the first j features
    share = (basis.T @ wide).square().sum(1).cumsum(0)
    table = {
        "feature": best.tolist(),
        "cosine": scores[best].tolist(),
        "encoder_cosine": (read[:, 0] if wide.shape[1] == 1 else read.norm(dim=1))[best].tolist(),
        "explained": share.clamp(max=1.0).tolist(),
    }
    generator = torch.Generator().manual_seed(seed)
    random = _unit(torch.randn(draws, width, generator=generator, dtype=torch.float64))
    chance = float((random @ rows.T).abs().amax(1).quantile(0.95))
    metadata = config.get("metadata") or {}
    site = str(metadata.get("hook_name") or config.get("hook_name") or config.get("hook_point") or "")
    return FeatureExplanation(pd.DataFrame(table), chance, n, site, str(folder), _note(direction, site))


def _note(direction: Direction | Tensor, site: str) -> str:
    """A word where the autoencoder reads elsewhere than the direction."""
    if not isinstance(direction, Direction) or not site:
        return ""
    at = _BLOCK.search(site)
    if at is not None and int(at[1]) == direction.layer:
        return ""
    return f"The features are of {site}, the direction of the input of block {direction.layer}."


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _read(folder: Path) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Config, decoder rows and encoder columns, both [feature, d_model]."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; name a folder that SAELens saved an autoencoder in")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG} is no configuration of an autoencoder")
    try:
        with safe_open(str(folder / WEIGHTS), framework="pt") as handle:
            there = set(handle.keys())
            missing = {"W_dec", "W_enc"} - there
            if missing:
                raise InputError(
                    f"{folder / WEIGHTS} has no {', '.join(sorted(missing))} (it has "
                    f"{', '.join(sorted(there))}); transcoders and other formats are not read"
                )
            decoder, encoder = (handle.get_tensor(name).double() for name in ("W_dec", "W_enc"))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} is not a readable safetensors file: {error}") from error
    if decoder.ndim != 2 or encoder.shape != decoder.T.shape:
        raise InputError(
            f"{folder / WEIGHTS}: W_dec is {list(decoder.shape)} and W_enc {list(encoder.shape)}; they must "
            "be [features, width] and [width, features]"
        )
    if not (torch.isfinite(decoder).all() and torch.isfinite(encoder).all()):
        raise NumericsError(f"{folder / WEIGHTS} holds NaN or infinite weights")
    return config, decoder, encoder.T
