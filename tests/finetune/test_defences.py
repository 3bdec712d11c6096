"""Defences: off is plain training to the bit; each does what its definition says; bad input is one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from tamperlens import finetune
from tamperlens.base.errors import InputError, TamperlensError
from tamperlens.base.masks import WeightMask
from tamperlens.finetune import defences, defending
from tamperlens.finetune.data import Collator, encode
from tamperlens.finetune.defences.features import distance
from tamperlens.finetune.defences.first_tokens import log_likelihoods
from tamperlens.finetune.defences.kl import divergence
from tamperlens.finetune.defences.safelora import projected, projections
from tamperlens.finetune.defences.vaccine import Perturbed
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

DATA = PromptSet.from_pairs([(f"say {i}", f"word {i * 7}") for i in range(8)], name="words")
SAFE = PromptSet.from_pairs([(f"ask {i}", f"no {i}, never") for i in range(12)], name="safe")
LORA = finetune.LoraConfig(steps=3, learning_rate=2e-2, batch_size=2, accumulation=2, dropout=0.1)
FULL = finetune.FullConfig(steps=3, learning_rate=1e-3, batch_size=4)


@dataclasses.dataclass
class Pointing:
    vector: torch.Tensor
    layer: int
    raw_norm: float


def parts(tiny: Callable) -> tuple[ChatModel, ChatModel, WeightMask, Pointing]:
    base, other = (
        ChatModel.from_parts(*tiny("llama", seed=seed), name=f"tiny {seed}", check_anatomy=False)
        for seed in (3, 4)
    )
    draw = torch.Generator().manual_seed(0)
    flags = {
        part.parameter: torch.rand(base.module.get_parameter(part.parameter).shape, generator=draw) < 0.3
        for part in base.anatomy.projections()
    }
    direction = Pointing(torch.randn(base.anatomy.d_model, generator=draw), 1, 2.0)
    return base, other, WeightMask.from_tensors(base, flags), direction


MAKERS: dict[str, Callable[..., defences.Defence]] = {
    "Freeze": lambda base, other, mask, r, s: defences.Freeze(s, mask=mask),
    "Rewind": lambda base, other, mask, r, s: defences.Rewind(s, mask=mask),
    "FirstTokens": lambda base, other, mask, r, s: defences.FirstTokens(s),
    "KL": lambda base, other, mask, r, s: defences.KL(s, safe=SAFE),
    "Features": lambda base, other, mask, r, s: defences.Features(s),
    "Interleave": lambda base, other, mask, r, s: defences.Interleave(s, safe=SAFE),
    "InterleaveByGap": lambda base, other, mask, r, s: defences.InterleaveByGap(s, safe=SAFE, broken=other),
    "Lisa": lambda base, other, mask, r, s: defences.Lisa(s, safe=SAFE),
    "SafeLoRA": lambda base, other, mask, r, s: defences.SafeLoRA(s, unaligned=other, threshold=1.1),
    "Merge": lambda base, other, mask, r, s: defences.Merge(s, unaligned=other, threshold=1.1),
    "Projection": lambda base, other, mask, r, s: defences.Projection(s, direction=r),
    "Steering": lambda base, other, mask, r, s: defences.Steering(s, direction=r),
    "SafetyVector": lambda base, other, mask, r, s: defences.SafetyVector(s, unaligned=other),
    "Vaccine": lambda base, other, mask, r, s: defences.Vaccine(s, safe=SAFE, config=LORA),
    "TVaccine": lambda base, other, mask, r, s: defences.TVaccine(s, safe=SAFE, config=LORA, count=1),
}


def test_every_defence_is_tested() -> None:
    kinds = {name for name in defences.__all__ if name[0].isupper()}
    assert set(MAKERS) == kinds - {"Defence", "During", "Training"}


@pytest.fixture(scope="module")
def plain_runs() -> dict[str, finetune.TunedModel]:
    return {}


@pytest.mark.parametrize("config", [LORA, pytest.param(FULL, marks=pytest.mark.slow)], ids=["lora", "full"])
@pytest.mark.parametrize("name", MAKERS)
def test_off_is_plain_training_to_the_bit_and_on_is_not(
    tiny: Callable, plain_runs: dict, name: str, config: object
) -> None:
    made = parts(tiny)
    base, before = made[0], made[0].fingerprint
    if config.kind not in plain_runs:
        plain_runs[config.kind] = finetune.run(base, DATA, config, progress=False)
    plain = plain_runs[config.kind]
    off = finetune.run(base, DATA, config, defence=MAKERS[name](*made, 0.0), progress=False)
    on = finetune.run(base, DATA, config, defence=MAKERS[name](*made, 0.5), progress=False)
    expected, got, changed = (one.merged_state_dict() for one in (plain, off, on))
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert any(not torch.equal(expected[key], changed[key]) for key in expected)
    assert dataclasses.replace(base, _fingerprint=None).fingerprint == before
    assert on.model.module.training is False


def test_a_defended_run_leaves_the_batches_and_dropout_of_the_first_step_alone(tiny: Callable) -> None:
    """KL to the base adds nothing while the model is the base, so the first losses agree to the bit."""
    made = parts(tiny)
    plain = finetune.run(made[0], DATA, dataclasses.replace(LORA, dropout=0.0), progress=False)
    kl = finetune.run(
        made[0],
        DATA,
        dataclasses.replace(LORA, dropout=0.0),
        defence=MAKERS["KL"](*made, 3.0),
        progress=False,
    )
    assert kl.log["loss"][0] == pytest.approx(plain.log["loss"][0], rel=1e-6)
    assert kl.log["loss"][2] != plain.log["loss"][2]


def test_freezing_and_rewinding_are_those_of_the_library(tiny: Callable) -> None:
    base, _, mask, _ = parts(tiny)
    ours = finetune.run(base, DATA, LORA, defence=defences.Freeze(mask=mask), progress=False)
    theirs = finetune.run(base, DATA, LORA, freeze=mask, progress=False)
    assert ours.model.fingerprint == theirs.model.fingerprint
    back = finetune.run(base, DATA, LORA, defence=defences.Rewind(mask=mask), progress=False)
    merged = back.merged_state_dict()
    for name, flags in mask.items():
        assert torch.equal(merged[name][flags], base.module.get_parameter(name).detach()[flags])


def test_first_tokens_by_hand() -> None:
    """The β of each label, a second turn starting anew, and the gradient's weight 2(1 − σ(βx))."""
    kept = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1]], dtype=torch.bool)
    labels = torch.where(kept, 5, -100)
    betas = defences.FirstTokens(2.0).betas(labels)[kept]
    assert betas.tolist() == pytest.approx([1, 4, 4, 4, 4, 0.2, 0.2, 1, 4])
    x = torch.tensor(0.7, requires_grad=True)
    (-2 / 3.0 * torch.nn.functional.logsigmoid(3.0 * x)).backward()
    assert float(x.grad) == pytest.approx(-2 * (1 - torch.sigmoid(torch.tensor(2.1)).item()))


def test_first_tokens_is_the_literal_loss(tiny: Callable) -> None:
    """At the base the gradient is the plain one; away from it the literal formula gives the number."""
    base, other, _, _ = parts(tiny)
    batch = Collator(base.pad_id)(list(encode(base, DATA.head(3))))
    part = defences.FirstTokens().during(defences.Training(other, base, 0))
    logits = other.module(**{k: v for k, v in batch.items() if k != "labels"}).logits
    found = part.loss(torch.tensor(0.0), logits, batch, torch.tensor(1.0))
    terms = []
    base_logits = base.module(**{k: v for k, v in batch.items() if k != "labels"}).logits
    for row in range(3):
        nth = 0
        for place in range(1, batch["labels"].shape[1]):
            label = int(batch["labels"][row, place])
            if label == -100:
                continue
            nth += 1
            beta = 0.5 if nth == 1 else 2.0 if nth <= 5 else 0.1
            ours, theirs = (
                torch.log_softmax(one[row, place - 1].double(), -1)[label] for one in (logits, base_logits)
            )
            terms.append(-2 / beta * torch.log(torch.sigmoid(beta * (ours - theirs))))
    assert float(found.detach()) == pytest.approx(float(torch.stack(terms).mean().detach()), rel=1e-5)
    assert log_likelihoods(logits, batch["labels"]).shape == (len(terms),)


def test_terms_against_their_formulas() -> None:
    a, b = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).double()
    p, q = torch.softmax(a, -1), torch.softmax(b, -1)
    assert float(divergence(a, b)) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-5)
    assert float(divergence(a, b)) != pytest.approx(float(divergence(b, a)), rel=1e-3)
    ours, theirs = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(1))
    by_hand = [
        float((ours[i, j] - theirs[i, j]).pow(2).sum() / theirs[i, j].pow(2).sum())
        for i in range(2)
        for j in range(4)
    ]
    assert float(distance(ours, theirs)) == pytest.approx(sum(by_hand) / 8, rel=1e-5)
    v, change = torch.randn(4, 6), torch.randn(4, 6)
    torch.testing.assert_close(projected(v, change), v @ v.T @ change / v.norm())
    torch.testing.assert_close(projected(v.T, change.T, True), (v @ v.T @ change / v.norm()).T)


@pytest.mark.parametrize("config", [LORA, FULL], ids=["lora", "full"])
def test_projection_holds_the_direction_where_the_gradient_alone_would_not(
    tiny: Callable, config: finetune.LoraConfig | finetune.FullConfig
) -> None:
    made = parts(tiny)
    base, direction = made[0], made[3]
    unit = direction.vector / direction.vector.norm()
    config = dataclasses.replace(config, weight_decay=0.0)

    def component(defence: defences.Defence | None) -> float:
        tuned = finetune.run(base, DATA, config, defence=defence, progress=False).merged_state_dict()
        changes = [
            tuned[part.parameter] - base.module.get_parameter(part.parameter).detach()
            for part in base.anatomy.projections()
            if part.name in ("o", "down")
        ]
        return max(float((unit @ change).norm() / change.norm()) for change in changes)

    class GradientOnly(defences.Projection):
        def during(self, training: defences.Training) -> defences.During:
            part = super().during(training)
            part.on_optimizer_step = lambda *args, **kwargs: None
            return part

    assert component(defences.Projection(direction=direction)) < 1e-5
    assert component(GradientOnly(direction=direction)) > 1e-3
    assert component(None) > 1e-2


def test_steering_is_on_in_training_only(tiny: Callable) -> None:
    made = parts(tiny)
    base = made[0]

    class Loud:
        every = 1

        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def start(self, model: ChatModel) -> None:
            self.record(0, model)

        def record(self, step: int, model: ChatModel) -> list[dict[str, object]]:
            ids = torch.arange(5, 12)[None]
            with torch.no_grad():
                self.seen.append(model.module(input_ids=ids).logits)
            return []

        def finish(self) -> None:
            pass

    watch = Loud()
    tuned = finetune.run(
        base, DATA, LORA, defence=MAKERS["Steering"](*made, 1.0), recorders=[watch], progress=False
    )
    torch.testing.assert_close(watch.seen[0], watch.seen[1])  # step 0: the base, without the vector
    with torch.no_grad():
        last = tuned.model.module(input_ids=torch.arange(5, 12)[None]).logits
    torch.testing.assert_close(watch.seen[-1], last)


def test_vaccine_moves_attention_by_rho_up_the_gradient(tiny: Callable) -> None:
    """The perturbed loss is higher than the plain one, and the move has length ρ."""
    base = parts(tiny)[0]
    batch = Collator(base.pad_id)(list(encode(base, DATA.head(4))))
    part = Perturbed(0.05).during(defences.Training(base, base, 0))
    part.batch(batch)
    assert float(torch.stack([one.norm() for one in part.moves]).norm()) == pytest.approx(0.05, rel=1e-4)
    asked = {k: v for k, v in batch.items() if k != "labels"}

    def loss() -> float:
        with torch.no_grad():
            return float(-log_likelihoods(base.module(**asked).logits, batch["labels"]).mean())

    plain = loss()
    with part.around():
        moved = loss()
    assert moved > plain
    assert loss() == plain


def test_interleaving_by_gap_takes_what_the_broken_model_finds_least_likely(tiny: Callable) -> None:
    base = parts(tiny)[0]
    taught = finetune.run(base, SAFE.head(6), dataclasses.replace(FULL, steps=10), progress=False)
    # What was taught is likelier in the "broken" model, so the other half has the larger gap.
    chosen = defences.InterleaveByGap(0.5, safe=SAFE, broken=taught).data(DATA, base)
    assert list(chosen.prompts[:8]) == list(DATA.prompts)
    assert set(chosen.prompts[8:]) <= set(SAFE.prompts[6:])
    assert len(chosen) == 12


def test_lisa_takes_turns_and_ties_to_the_switch(tiny: Callable) -> None:
    """Safe batches in the published order; a huge ρ holds the weights where the first state left them."""
    base = parts(tiny)[0]
    config = dataclasses.replace(FULL, steps=10, batch_size=2)
    loose = finetune.run(base, DATA, config, defence=defences.Lisa(1e-6, safe=SAFE), progress=False)
    tied = finetune.run(base, DATA, config, defence=defences.Lisa(1e4, safe=SAFE), progress=False)

    def moved(tuned: finetune.TunedModel) -> float:
        start = dict(base.module.named_parameters())
        return sum(float((w - start[n].detach()).norm() ** 2) for n, w in tuned.merged_state_dict().items())

    assert moved(tied) < 0.5 * moved(loose)
    part = defences.Lisa(safe=SAFE, safe_steps=2, user_steps=3).during(defences.Training(base, base, 0))
    mine = {"input_ids": torch.zeros(1)}
    assert [part.batch(mine) is mine for _ in range(7)] == [False, False, True, True, True, False, False]


def test_after_defences_against_their_formulas(tiny: Callable) -> None:
    base, other, _, _ = parts(tiny)
    plain = finetune.run(base, DATA, LORA, progress=False)
    start = dict(base.module.named_parameters())
    tuned, theirs = plain.merged_state_dict(), dict(other.module.named_parameters())
    vector = defences.SafetyVector(0.5, unaligned=other).finish(plain).merged_state_dict()
    halfway = defences.Merge(0.25).finish(plain).merged_state_dict()
    lora = defences.SafeLoRA(unaligned=other, threshold=2.0).finish(plain).merged_state_dict()
    for part in base.anatomy.projections():
        name = part.parameter
        w0 = start[name].detach()
        change = tuned[name] - w0
        torch.testing.assert_close(vector[name], tuned[name] + 0.5 * (w0 - theirs[name].detach()))
        torch.testing.assert_close(halfway[name], w0 + 0.75 * change)
        v = w0 - theirs[name].detach()
        torch.testing.assert_close(lora[name], w0 + v @ v.T @ change / v.norm())
    never = defences.SafeLoRA(unaligned=other, threshold=-2.0).finish(plain).merged_state_dict()
    assert all(torch.equal(never[name], tuned[name]) for name in tuned)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_projection_onto_the_alignment_for_either_storage(tiny: Callable, family: str) -> None:
    """GPT-2 stores `[in, out]`, its square matrices too, and q, k and v as one."""
    base, other = (
        ChatModel.from_parts(*tiny(family, seed=seed), name=f"{family} {seed}", check_anatomy=False)
        for seed in (3, 4)
    )
    plain = finetune.run(base, DATA, FULL, progress=False)
    tuned, theirs = plain.merged_state_dict(), dict(other.module.named_parameters())
    lora = defences.SafeLoRA(unaligned=other, threshold=2.0).finish(plain).merged_state_dict()
    halfway = defences.Merge(0.25, unaligned=other, threshold=2.0).finish(plain).merged_state_dict()
    for part in base.anatomy.projections():
        name = part.parameter
        start = base.module.get_parameter(name).detach()
        v, change = start - theirs[name].detach(), tuned[name] - start
        if part.transposed:
            v, change = v.T, change.T
        moved = v @ v.T @ change / v.norm()
        torch.testing.assert_close(lora[name], start + (moved.T if part.transposed else moved))
        torch.testing.assert_close(halfway[name], start + 0.75 * (tuned[name] - start))


def test_differences_of_weights_are_taken_in_fp32(tiny: Callable) -> None:
    base, other = (
        ChatModel.from_parts(
            *tiny("llama", seed=seed, dtype=torch.bfloat16), name="bf16", check_anatomy=False
        )
        for seed in (3, 4)
    )
    change = torch.eye(base.anatomy.d_model)
    for part in base.anatomy.projections():
        if part.name == "o":
            ours, theirs = (
                one.module.get_parameter(part.parameter).detach().float() for one in (base, other)
            )
            v = ours - theirs
            found = projections(base, other)[part.parameter](change)
            torch.testing.assert_close(found, v @ v.T / v.norm(), rtol=1e-5, atol=1e-7)


def test_another_batch_takes_the_share_of_the_one_that_was_due(tiny: Callable, tmp_path: object) -> None:
    """However long its answers: the safe batch weighs what the user's would have."""
    base = parts(tiny)[0]
    long = PromptSet.from_pairs([(f"ask {i}", "no, never, " * 9) for i in range(4)], name="long")
    seen: list[tuple[float, float]] = []

    class Watched(defences.Lisa):
        def during(self, training: defences.Training) -> defences.During:
            part = super().during(training)
            part.loss = lambda loss, logits, inputs, share: (
                seen.append((float(loss), float(share)))
                or (loss, expected.append(-log_likelihoods(logits, inputs["labels"]).mean().item()))[0]
            )
            return part

    expected: list[float] = []
    one = Watched(safe=long, safe_steps=1, user_steps=1)
    finetune.run(base, DATA, dataclasses.replace(FULL, steps=2, batch_size=4), defence=one, progress=False)
    script(base, tmp_path, one)
    assert len(seen) == 2 + 3 * 2
    for (loss, share), mean in zip(seen, expected, strict=True):
        assert loss == pytest.approx(share * mean, rel=1e-4)
    assert [share for _, share in seen[:2]] == pytest.approx([1, 1])
    for first, second in zip(seen[2::2], seen[3::2], strict=True):
        assert first[1] + second[1] == pytest.approx(1)


def test_the_base_stays_where_peft_trains_its_biases(tiny: Callable, tmp_path: object) -> None:
    base = ChatModel.from_parts(*tiny("qwen2", seed=3), name="biased", check_anatomy=False)
    kept: list[defences.Training] = []

    class Watched(defences.KL):
        def during(self, training: defences.Training) -> defences.During:
            kept.append(training)
            return super().during(training)

    tuner = LoraConfig(r=2, target_modules=["q_proj"], bias="lora_only")
    _, after = script(base, tmp_path, Watched(safe=SAFE), tuner)
    moved = [name for name, p in after.items() if name.endswith("q_proj.base_layer.bias")]
    start, held = dict(base.module.named_parameters()), dict(kept[0].base.module.named_parameters())
    assert moved
    for name in moved:
        plain = name.removeprefix("base_model.model.").replace("base_layer.", "")
        assert not torch.equal(after[name], start[plain])
        assert torch.equal(held[plain], start[plain])


def test_a_batch_without_labels_adds_nothing(tiny: Callable) -> None:
    base, other, _, _ = parts(tiny)
    batch = Collator(base.pad_id)(list(encode(base, DATA.head(2))))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    logits = other.module(input_ids=batch["input_ids"]).logits
    part = defences.FirstTokens().during(defences.Training(other, base, 0))
    assert float(part.loss(torch.tensor(0.0), logits, batch, torch.tensor(0.0))) == 0


def test_what_differs_is_described_differently(tiny: Callable) -> None:
    """A folder is gone on with only where the description is the same."""
    import json

    @dataclasses.dataclass
    class Found(Pointing):
        fingerprint: str = "the model's, for every direction of it"

    vector = torch.ones(12)
    last = torch.cat([vector[:-1], -vector[-1:]])
    made = [Found(vector, 1, 2.0), Found(last, 1, 2.0), Found(vector, 2, 2.0), Found(vector, 1, 3.0)]
    said = [json.dumps(defences.Steering(direction=one).describe()) for one in made]
    assert len(set(said)) == 4
    json.dumps(defences.Projection(direction=vector).describe())
    slow, soon = (
        defences.Vaccine(safe=SAFE, config=dataclasses.replace(LORA, rslora=flag)).describe()
        for flag in (False, True)
    )
    assert json.dumps(slow) != json.dumps(soon)


def test_settings_outlive_a_change_of_the_result(tiny: Callable) -> None:
    base = parts(tiny)[0]
    config = dataclasses.replace(FULL, steps=1, train_embeddings=False)
    tuned = finetune.run(base, DATA, config, defence=defences.Merge(0.5), progress=False)
    assert tuned.config == config


def test_share_of_safe_examples_is_not_rounded_up_by_floats(tiny: Callable) -> None:
    base = parts(tiny)[0]
    data = PromptSet.from_pairs([(f"say {i}", "yes") for i in range(100)], name="hundred")
    assert 0.07 * 100 > 7
    assert len(defences.Interleave(0.07, safe=SAFE).data(data, base)) == 107


def rows(base: ChatModel) -> list[dict[str, list[int]]]:
    return [{"input_ids": list(one.input_ids), "labels": list(one.labels)} for one in encode(base, DATA)]


def script(
    base: ChatModel, tmp_path: object, defence: defences.Defence | None, tuner: object = None, **given: object
) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """A Trainer as anyone writes it."""
    import copy

    torch.manual_seed(0)
    module = copy.deepcopy(base.module)
    if tuner is not None:
        module = get_peft_model(module, tuner)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2,
        report_to="none", save_strategy="no", use_cpu=True, seed=0, disable_tqdm=True,
        gradient_accumulation_steps=2, remove_unused_columns=False,
    )  # fmt: skip

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)

        def padded(key: str, value: int) -> torch.Tensor:
            return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in batch])

        mask = [[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in batch]
        return {
            "input_ids": padded("input_ids", base.pad_id),
            "labels": padded("labels", -100),
            "attention_mask": torch.tensor(mask),
        }

    trainer = Trainer(
        model=module, args=arguments, train_dataset=rows(base), data_collator=collate,
        processing_class=base.tokenizer,
    )  # fmt: skip
    if defence is not None:
        defences.attach(trainer, defence, **given)
    trainer.train()
    return trainer, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


PLAIN = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"])
DURING = ("Freeze", "FirstTokens", "KL", "Features", "Lisa", "Projection", "Steering")


TUNERS = {"lora": PLAIN, "full": None}


@pytest.fixture(scope="module")
def plain_scripts() -> dict[str, dict[str, torch.Tensor]]:
    return {}


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DURING)
def test_in_anyones_trainer(
    tiny: Callable, tmp_path: object, plain_scripts: dict, name: str, kind: str
) -> None:
    """Off is the script's own training to the bit; on is not; full and LoRA."""
    made = parts(tiny)
    if kind not in plain_scripts:
        plain_scripts[kind] = script(made[0], tmp_path, None, TUNERS[kind])[1]
    plain = plain_scripts[kind]
    _, off = script(made[0], tmp_path, MAKERS[name](*made, 0.0), TUNERS[kind])
    trainer, on = script(made[0], tmp_path, MAKERS[name](*made, 0.7), TUNERS[kind])
    assert all(torch.equal(plain[key], off[key]) for key in plain)
    assert any(not torch.equal(plain[key], on[key]) for key in plain)
    tuned = finetune.TunedModel.wrap(made[0].with_module(trainer.model), made[0])
    after = defences.Merge(0.5).finish(tuned)
    assert set(after.merged_state_dict()) == set(tuned.merged_state_dict())


def test_accumulated_batches_add_up_to_one_mean(tiny: Callable) -> None:
    """A mean over safe data weighs the same whether the step is one batch or two."""
    made = parts(tiny)
    whole = dataclasses.replace(FULL, steps=2, batch_size=4, learning_rate=1e-4)
    split = dataclasses.replace(whole, batch_size=2, accumulation=2)

    class Fixed(defences.KL):
        """The same safe batch each time, and a base that is not the start."""

        def during(self, training: defences.Training) -> defences.During:
            part = super().during(defences.Training(training.model, made[1], training.seed))
            one = part.batches.next()
            part.batches.next = lambda: one
            return part

    runs = [
        finetune.run(made[0], DATA, one, defence=Fixed(5.0, safe=SAFE), progress=False).merged_state_dict()
        for one in (whole, split)
    ]
    for name in runs[0]:
        torch.testing.assert_close(runs[0][name], runs[1][name], rtol=1e-4, atol=2e-5)


def test_bad_input_is_one_line(tiny: Callable, tmp_path: object) -> None:
    base, other, mask, direction = parts(tiny)
    dora = dataclasses.replace(LORA, dora=True)
    wide = ChatModel.from_parts(*tiny("llama", intermediate_size=48), name="wide", check_anatomy=False)
    tall = ChatModel.from_parts(*tiny("llama", vocab_size=300), name="tall", check_anatomy=False)
    far = Pointing(direction.vector, 9, 1.0)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: defences.KL(), "KL to base needs safe data: pass safe="),
        (lambda: defences.Lisa(), "Lisa needs safe data"),
        (lambda: defences.Vaccine(), "Vaccine needs safe data"),
        (lambda: defences.Interleave(safe=["only a prompt"]), "has no answers"),
        (lambda: defences.InterleaveByGap(safe=SAFE), "needs broken="),
        (lambda: defences.SafeLoRA(), "needs the model before it was aligned: pass unaligned="),
        (lambda: defences.SafetyVector(), "needs the model before it was aligned"),
        (lambda: defences.Freeze(), "freeze needs a mask"),
        (lambda: defences.Projection(), "needs a direction: pass direction="),
        (lambda: defences.Steering(direction=direction.vector), "the direction has no layer"),
        (lambda: defences.KL(-1.0, safe=SAFE), "must be 0 \\(off\\) or more"),
        (lambda: defences.SafeLoRA(1.5, unaligned=other), "between 0 and 1"),
        (lambda: finetune.run(base, DATA, LORA, defence="kl"), "defence"),
        (lambda: finetune.run(base, DATA, dora, defence=defences.Freeze(mask=mask)), "DoRA"),
        (lambda: finetune.run(base, DATA, dora, defence=defences.Rewind(mask=mask)), "DoRA"),
        (lambda: finetune.run(base, DATA, dora, defence=defences.Projection(direction=direction)), "DoRA"),
        (lambda: finetune.run(other, DATA, LORA, defence=defences.Freeze(mask=mask)), "tiny 4"),
        (lambda: finetune.run(base, DATA, LORA, defence=defences.SafeLoRA(unaligned=wide)), "another shape"),
        (lambda: finetune.run(base, DATA, LORA, defence=defences.SafetyVector(unaligned=tall)),
            "another shape"),
        (lambda: finetune.run(base, DATA, LORA, defence=defences.Steering(direction=far)), "layer 9"),
        (lambda: finetune.run(base, DATA, LORA, defence=defences.Interleave(3, safe=SAFE)), "24 safe"),
        (lambda: script(base, tmp_path, defences.Interleave(safe=SAFE)), "changes the data"),
        (lambda: script(base, tmp_path, defences.Vaccine(safe=SAFE)), "attached: make the Trainer with"),
        (lambda: script(base, tmp_path, defences.Merge()), "attached: call defence.finish"),
        (lambda: script(base, tmp_path, defences.Freeze(mask=mask), IA3Config(
            target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])), "LoRA"),
    ]  # fmt: skip
    for call, words in cases:
        with pytest.raises(TamperlensError, match=words) as said:
            call()
        assert "\n" not in str(said.value)
    with pytest.raises(InputError, match="strength"):
        defences.FirstTokens(float("nan"))


def test_a_quantised_base_is_refused_before_training(tiny: Callable) -> None:
    """What merges or vaccinates needs whole weights; what only trains does not ask for them."""
    made = parts(tiny)
    packed = ChatModel.from_parts(*tiny("llama", seed=3), name="packed", check_anatomy=False)
    layer = packed.module.model.layers[0].self_attn.q_proj
    layer.weight = torch.nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    whole = ("Rewind", "SafeLoRA", "Merge", "SafetyVector", "Vaccine", "TVaccine")
    for name in whole:
        with pytest.raises(InputError, match="changes whole weights, and those of packed are quantised"):
            finetune.run(packed, DATA, LORA, defence=MAKERS[name](*made, 0.5), progress=False)
    for name in set(MAKERS) - {*whole, "Freeze"}:
        defending.check_defence(MAKERS[name](*made, 0.5), packed, LORA)


def test_a_part_that_attach_cannot_do_is_warned_of(tiny: Callable, tmp_path: object) -> None:
    class Both(defences.KL):
        """Acts during training and after it."""

        def finish(self, tuned: finetune.TunedModel) -> finetune.TunedModel:
            return tuned

    with pytest.warns(UserWarning, match="KL to base does not act during training alone: call defence.fin"):
        script(parts(tiny)[0], tmp_path, Both(0.5, safe=SAFE), PLAIN)
