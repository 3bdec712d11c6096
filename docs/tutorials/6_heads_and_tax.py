# %% [markdown]
# # 6. Heads, and the alignment tax
#
# Which attention heads carry refusal, and what does teaching a model to refuse cost it? First the heads of the
# aligned organism, by a gradient for all at once and exactly, one by one.

# %%
import tamperlens
from tamperlens import finetune, heads, prompts, refusal

model = tamperlens.load("organism")
harmful = prompts.packaged("harmful", split="train")
harmless = prompts.packaged("harmless", split="train")
direction = refusal.find_direction(model, harmful, harmless)
clean, corrupt = heads.align(
    model, prompts.packaged("harmful", split="test").head(60), prompts.packaged("harmless", split="test")
)
target = {"target": "refusal_tokens", "tokens": direction.tokens}
quick = heads.attribute(model, clean, corrupt=corrupt, method="gradient", at="corrupt", **target)
exact = heads.attribute(model, clean, corrupt=corrupt, method="patch", **target)
print(f"{len(clean)} pairs; rank correlation {heads.rank_agreement(quick, exact)}")

# %%
exact.plot()

# %% [markdown]
# The best heads ablated together, on other prompts, beside random heads of the same layers.

# %%
others = prompts.packaged("harmful", split="test").subset(range(100, 140))
curve = heads.ablation_curve(model, exact.ranking()[:5], others, mode="mean", draws=10, **target)
curve.plot(name="ablation-heads")

# %% [markdown]
# Now the tax. A helpful-only base model is tuned on a hundred refusals and nothing else, and everything is asked
# before and after on held-out prompts: harmful requests, harmless ones, ones that only sound harmful, sums, logic,
# code, facts.

# %%
base = tamperlens.load("organism:base")
attack = finetune.attacks.refusal_only(100)
tuned = finetune.run(base, attack.data, attack.config_for(base), progress=False)
report = tamperlens.spillover(base, tuned.model, limit=40, questions=30)
print(report.summary())

# %%
report.plot()

# %% [markdown]
# A model that refuses everything scores 100 % on a refusal benchmark. That is why over-refusal stands beside refusal
# everywhere. `analyses/alignment_tax.py` shows the dose curve and what mixing in harmless examples saves.

# %% [markdown]
# ## The same on your model
#
# Heads of any model that has them, and the tax of any two checkpoints:
#
# ```python
# before = tamperlens.load("Qwen/Qwen2.5-0.5B-Instruct")
# after = tamperlens.load("Qwen/Qwen2.5-0.5B-Instruct", adapter="my-adapter")
# report = tamperlens.spillover(before, after, limit=40)
# print(report.summary())
# ```
