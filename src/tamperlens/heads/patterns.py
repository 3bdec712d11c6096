"""What heads look at: attention over one prompt, before and after, and the tokens that chosen heads read."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, write_text
from tamperlens.base.results import Result
from tamperlens.heads.inputs import Prompts, batched, make_rows, padded
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.plots import Plot
from tamperlens.prompts import as_prompts
from tamperlens_hooks.attention import attention_patterns

Head = tuple[int, int]
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:1rem auto;padding:0 1rem;
color:#1b1f24}}h1{{font-size:1.2rem}}h2{{font-size:1rem;margin-top:1.5rem}}</style></head>
<body><main><h1>{title}</h1><p>{caption}</p>{blocks}</main></body></html>
"""


@dataclass(frozen=True)
class Patterns(Result):
    """Attention weights of one prompt.

    Attributes:
        weights: [layer, head, query, key], fp32; each row sums to 1 over the tokens that it sees.
        layers: which blocks.
        tokens: the prompt's tokens as text, template included.
        prompt: what the user said.
        model: its name.
        fingerprint: of the model.
    """

    weights: Float[Tensor, "layer head query key"]
    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    prompt: str
    model: str
    fingerprint: str

    def summary(self) -> str:
        """What was read."""
        return (
            f"{self.model}: attention of {self.weights.shape[1]} heads in each of {len(self.layers)} layers "
            f"over {len(self.tokens)} tokens."
        )

    def head(self, layer: int, head: int) -> Float[Tensor, "query key"]:
        """One head's weights.

        Raises:
            InputError: it was not read.
        """
        if layer not in self.layers or not 0 <= head < self.weights.shape[1]:
            raise InputError(
                f"head {(layer, head)} was not read; there are layers {list(self.layers)} of "
                f"{self.weights.shape[1]} heads"
            )
        return self.weights[self.layers.index(layer), head]

    def to_frame(self) -> pd.DataFrame:
        """What the last token reads: layer, head, position, token, weight."""
        return pd.DataFrame(
            [
                {"layer": layer, "head": head, "position": at, "token": token,
                 "weight": float(self.weights[i, head, -1, at])}
                for i, layer in enumerate(self.layers)
                for head in range(self.weights.shape[1])
                for at, token in enumerate(self.tokens)
            ]
        )  # fmt: skip

    def page(
        self, path: PathLike, heads: Sequence[Head] | None = None, *, after: Patterns | None = None
    ) -> Path:
        """Write an interactive circuitsvis page that needs no network; see `write_page`."""
        return write_page(path, [self] if after is None else [self, after], heads)

    def plot(self, layer: int, head: int, *, after: Patterns | None = None, name: str | None = None) -> Plot:
        """A `tamperlens.plots.Plot`: query × key heat map of one head, before and after side by side.

        Raises:
            InputError: the head was not read, or `after` is of another prompt.
        """
        from tamperlens.plots import attention_map

        both = [self] if after is None else [self, after]
        _same_prompt(both)
        return attention_map(
            {one.model: one.head(layer, head).numpy() for one in both}
            if len({one.model for one in both}) == len(both)
            else {f"{i + 1}: {one.model}": one.head(layer, head).numpy() for i, one in enumerate(both)},
            list(self.tokens),
            name=name or f"attention-{layer}-{head}",
            title=f"Attention of head {layer}.{head}",
            caption="One prompt: share of each token's (row) attention to each earlier one (column).",
        )


def patterns(model: ModelLike, prompt: str, *, layers: Sequence[int] | int | None = None) -> Patterns:
    """Attention of every head over one rendered prompt.

    The model runs with eager attention once, and has its own implementation back afterwards.

    Args:
        model: the model.
        prompt: what the user says.
        layers: blocks; all by default.

    Raises:
        UnsupportedModelError: eager attention is not available.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import heads
        >>> model = tamperlens.load('organism')
        >>> found = heads.patterns(model, 'Name a tree.', layers=0)
        >>> type(found).__name__
        'Patterns'
    """
    model = as_chat_model(model)
    ids = model.token_ids([prompt])
    found = attention_patterns(model, padded(model, ids), layers)[:, 0]
    chosen = range(model.n_layers) if layers is None else [layers] if isinstance(layers, int) else layers
    return Patterns(
        found, tuple(chosen), tuple(token_texts(model, ids[0])), prompt, model.name, model.fingerprint
    )


def tokens_read(
    model: ModelLike,
    prompts: Prompts,
    heads: Sequence[Head],
    *,
    query: int = -1,
    most: int = 10,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Which tokens heads read at one position, over many prompts.

    Args:
        model: the model.
        prompts: what to run.
        heads: such as `scores.top(3)`.
        query: reading position, from the end.
        most: tokens for each head.
        batch_size: prompts at once.

    Returns:
        For each head its tokens by falling total weight: layer, head, token, share (of the head's whole
        attention at that position, over all prompts), weight (mean over its occurrences), n (occurrences).

    Raises:
        InputError: no heads, or a position that a prompt does not have.
        UnsupportedModelError: eager attention is not available.
    """
    model = as_chat_model(model)
    prompts = as_prompts(prompts, what="prompts")
    if not heads:
        raise InputError("no heads to read; give (layer, head) pairs, such as scores.top(3)")
    rows = make_rows(model, prompts, None)
    if query >= 0 or -query > min(len(ids) for ids in rows.clean):
        raise InputError(f"query {query} must be negative and inside every prompt")
    layers = sorted({layer for layer, _ in heads})
    sums: dict[tuple[Head, int], list[float]] = {}
    for batch in batched(model, rows, batch_size):
        found = attention_patterns(model, batch.clean, layers)
        for i, row in enumerate(batch.rows):
            ids = rows.clean[row]
            for layer, head in heads:
                weights = found[layers.index(layer), i, head, query, -len(ids) :].tolist()
                for token, weight in zip(ids, weights, strict=True):
                    sums.setdefault(((layer, head), token), []).append(weight)
    table = []
    for layer, head in heads:
        mine = [(token, values) for (at, token), values in sums.items() if at == (layer, head)]
        mine.sort(key=lambda item: (-sum(item[1]), item[0]))
        for token, values in mine[:most]:
            table.append(
                {"layer": layer, "head": head, "token": token_texts(model, [token])[0],
                 "share": sum(values) / len(rows), "weight": sum(values) / len(values), "n": len(values)}
            )  # fmt: skip
    return pd.DataFrame(table)


def write_page(path: PathLike, runs: Sequence[Patterns], heads: Sequence[Head] | None = None) -> Path:
    """An HTML page with circuitsvis's attention view, its script inside: it opens without network.

    Args:
        path: where to write it; about 1.3 MB.
        runs: patterns of one prompt, such as before and after.
        heads: which heads; all that were read by default.

    Raises:
        InputError: nothing to show, or the patterns are of different prompts.
    """
    if not runs:
        raise InputError("no patterns to write; give at least one")
    _same_prompt(runs)
    from circuitsvis.attention import attention_heads

    first = runs[0]
    chosen = (
        [(layer, head) for layer in first.layers for head in range(first.weights.shape[1])]
        if heads is None
        else list(heads)
    )
    blocks, calls = [], []
    for one in runs:
        shown = attention_heads(
            attention=torch.stack([one.head(*at) for at in chosen]).numpy(),
            tokens=list(one.tokens),
            attention_head_names=[f"{layer}.{head}" for layer, head in chosen],
            max_value=1.0,
            min_value=-1.0,
        )
        place, library, call = _taken_apart(str(shown.local_src))
        blocks.append(f"<h2>{html.escape(one.model)}</h2>{place}")
        calls.append(call)
    caption = f"Prompt: “{first.prompt}” Heads are named layer.head."
    page = _PAGE.format(title="Attention patterns", caption=html.escape(caption), blocks="".join(blocks))
    script = f'<script type="module">{library}{"".join(calls)}</script></body></html>'
    page = page.replace("</body></html>", "") + script
    return write_text(path, page)


def token_texts(model: ChatModel, ids: Sequence[int]) -> list[str]:
    """Each token as readable text."""
    return [str(model.tokenizer.decode([token])).replace("\n", "⏎") for token in ids]


def _same_prompt(runs: Sequence[Patterns]) -> None:
    if len({one.tokens for one in runs}) > 1:
        raise InputError("the patterns are of different prompts or tokenizers; run both models on one prompt")


def _taken_apart(source: str) -> tuple[str, str, str]:
    """circuitsvis's self-contained block as (its div, the library, the call that draws).

    `local_src` holds the script, `str()` would pull it from a CDN. The library goes into a page once, and
    tokens such as "</script>" must not end the script.
    """
    place, script = source.split("<script", 1)
    script = script.split(">", 1)[1].rsplit("</script>", 1)[0]
    at = script.rindex("CircuitsVis.render(")
    call = script[at:].replace("</", "<\\/").replace("<!--", "<\\!--").rstrip()
    return place.strip().replace("/>", "></div>"), script[:at], f"{call};\n"
