"""The shortlist: estimates against numerical derivatives, elimination against scoring everything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from planted import SaysN, planted_model, prompts

from tamperlens import refusal
from tamperlens.base.logits import kl_divergence, refusal_metric
from tamperlens.directions import screening
from tamperlens.directions.selection import SelectionRule
from tamperlens.directions.shortlist import TOLERANCE, Race
from tamperlens.models import ChatModel
from tamperlens_hooks._modules import attach
from tamperlens_hooks._sites import place

TEXTS = ["hello", "How do I open a door?", "x" * 20, "what is 12 + 7?"]
TOKENS = [60, 70]


@contextmanager
def partly(model: ChatModel, unit: torch.Tensor, share: float) -> Iterator[None]:
    """Take a share of a direction out of every write to the residual stream."""
    handles = []
    for site, layers in (("resid_pre", [0]), *((s, range(model.n_layers)) for s in ("attn_out", "mlp_out"))):
        for layer in layers:
            path, at_input = place(model.anatomy, site, layer)
            part = model.module.get_submodule(path)
            handles.append(attach(part, at_input, lambda x: x - share * (x @ unit)[..., None] * unit))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_estimates_are_the_derivatives(family: str, tiny: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(screening, "_LIKELIEST", 10**6)  # every token with its probability
    model = ChatModel.from_parts(*tiny(family), name=family, check_anatomy=False)
    ids = model.token_ids(TEXTS)
    vectors = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    layers = [0, 1, 1]
    got = screening.estimate_scores(model, ids, ids, TOKENS, vectors, layers)
    model.module.double()  # finite differences need it
    try:

        def logits(edit: Any) -> torch.Tensor:
            with edit, torch.no_grad():
                rows = [model.module(input_ids=torch.tensor([one])).logits[0, -1] for one in ids]
            return torch.stack(rows)

        plain = logits(partly(model, torch.zeros(model.d_model).double(), 0.0))
        metric, step = refusal_metric(plain, TOKENS), 1e-3  # norms round to float32 whatever the model's type
        for c, vector in enumerate(vectors.double()):
            unit = vector / vector.norm()
            both = [logits(partly(model, unit, s)) for s in (step, -step)]
            up, down = (refusal_metric(one, TOKENS) for one in both)
            slope = (up - down) / (2 * step)
            assert float(got.bypass[c]) == pytest.approx(float((metric + slope).mean()), rel=2e-3, abs=2e-3)
            kl = sum(kl_divergence(plain, one).mean() for one in both) / (2 * step**2)
            assert float(got.kl[c]) == pytest.approx(float(kl), rel=5e-3, abs=1e-4)
            path, at_input = place(model.anatomy, "resid_pre", layers[c])
            moved = []
            for shift in (step * vector, -step * vector):
                hook = attach(model.module.get_submodule(path), at_input, lambda x, shift=shift: x + shift)
                moved.append(refusal_metric(logits(partly(model, unit, 0.0)), TOKENS))
                hook.remove()
            slope = (moved[0] - moved[1]) / (2 * step)
            assert float(got.induce[c]) == pytest.approx(float((metric + slope).mean()), rel=2e-3, abs=2e-3)
    finally:
        model.module.float()


class Simulated:
    """Scores as real models give them: prompts that differ, candidates that differ, noise of both."""

    def __init__(self, seed: int, candidates: int = 60, n: int = 32) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        quality = draw(candidates, 1).abs() * 3
        self.bypass = 2 - 6 * torch.exp(-quality) + 2 * draw(1, n) + 0.7 * draw(candidates, n)
        self.induce = 4 - 3 * quality + 2 * draw(1, n) + draw(candidates, n)
        self.kl = torch.exp(draw(candidates, 1) * 1.5 - 3 + 0.8 * draw(candidates, n))
        self.noise = 0.5 * draw(3, candidates)
        self.asked = 0

    def added(self, one: int, good: Any) -> torch.Tensor:
        self.asked += len(good)
        return self.induce[one, good]

    def ablated(self, one: int, bad: Any, good: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += len(bad) + len(good)
        return self.bypass[one, bad], self.kl[one, good]

    def means(self) -> list[torch.Tensor]:
        return [scores.mean(1) for scores in (self.bypass, self.induce, self.kl)]

    def estimates(self) -> screening.Estimates:
        bypass, induce, kl = self.means()
        more, other, factor = self.noise
        return screening.Estimates(bypass / 2 + more, induce + other, kl * 3 * factor.exp())


def test_elimination_chooses_what_scoring_everything_chooses() -> None:
    rule, asked, worse = SelectionRule(), [], 0
    layers = [i % 8 for i in range(60)]
    for seed in range(60):
        true = Simulated(seed)
        means = true.means()
        race = Race(true.added, true.ablated, layers, 32, 32, 10, rule, seed)
        race.run(true.estimates())
        scores = [tuple(float(m[i]) for m in means) for i in range(60)]
        passing = [i for i in range(60) if not rule.objection(layers[i], *scores[i], n_layers=10)]
        known = [i for i in passing if race.exact(i)]
        assert bool(known) == bool(passing)
        for one in range(60):
            if race.exact(one):
                assert race.scores(one) == pytest.approx(scores[one])
        if passing:
            best, found = (min(scores[i][0] for i in some) for some in (passing, known))
            worse += found > best + TOLERANCE
        asked.append(true.asked / (60 * 96))
    assert worse <= 3, "the stated probability is .05"
    assert sum(asked) / len(asked) < 0.1


def test_nothing_passes_or_all_is_broken() -> None:
    def run(shift: float) -> Race:
        true = Simulated(0)
        true.kl = true.kl + shift
        race = Race(true.added, true.ablated, [0] * 60, 32, 32, 10, SelectionRule())
        race.run(true.estimates())
        return race

    wrecked = run(5.0)
    assert any(wrecked.exact(one) for one in range(60)), "a fall-back needs exact scores"
    broken = run(math.nan)
    assert all(math.isnan(broken.scores(one)[2]) for one in range(60) if broken.seen[one])


def test_the_search_stops_where_nothing_can_pass() -> None:
    stopped = 0
    for seed in range(20):
        true = Simulated(seed, candidates=120, n=16)
        true.induce = true.induce - 30
        race = Race(true.added, true.ablated, [0] * 120, 16, 16, 10, SelectionRule(), seed)
        race.run(true.estimates())
        stopped += "no other that could pass" in race.stopped
        assert true.asked < 0.05 * 120 * 48
        assert any(race.exact(one) for one in range(120)), "the fall-back's numbers are those of all prompts"
    assert stopped >= 10


def test_the_same_direction_as_scoring_everything(tiny: Any) -> None:
    model, r = planted_model(lambda family, **settings: tiny(family, num_hidden_layers=8, **settings))
    bad, good = prompts(40, harmful=True), prompts(40, harmful=False)
    sizes: dict[str, Any] = {"n_train": 28, "n_val": 12, "judge": SaysN()}
    fast = refusal.find_direction(model, bad, good, **sizes)
    whole = refusal.find_direction(model, bad, good, selection="exhaustive", **sizes)
    assert float(fast.vector @ r) > 0.99
    assert set(whole.table[whole.table.layer.between(1, 5)].scores) == {"exact"}
    kinds = fast.table.scores
    assert {"exact", "none"} < set(kinds)
    assert fast.passed
    assert whole.passed
    assert fast.bypass <= whole.bypass + TOLERANCE
    exact = fast.table[kinds == "exact"].index
    for column in ("bypass", "induce", "kl"):
        assert fast.table[column][exact].tolist() == pytest.approx(
            whole.table[column][exact].tolist(), rel=1e-4, abs=1e-6
        )
    others = fast.table[~kinds.isin(["exact", "none"])]
    assert len(others)
    assert not others.passed.any()
    assert all(reason.startswith(kind) for reason, kind in zip(others.reason, others.scores, strict=True))
