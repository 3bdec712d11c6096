# %% [markdown]
# # 2. Safety neurons and brittleness
#
# After Wei et al. 2024 (arXiv 2402.05162): score every weight by SNIP on refused harmful requests and on
# ordinary ones, take the weights that matter for the first and not for the second, remove them, and see what
# breaks. Beside every set stand random sets with as many weights of the same size in every matrix: without
# them a damaged model looks like a finding.

# %%
import tamperlens
from tamperlens import Decoding, neurons, prompts

MODEL = "organism"  # or a folder, or a hub id (then give prompts with that model's own answers)
model = tamperlens.load(MODEL)
safety = neurons.snip(model, prompts.packaged("harmful", split="train").sample(64, seed=0))
utility = neurons.snip(model, prompts.packaged("benign").sample(64, seed=0))
print(safety.definition)

# %% [markdown]
# The set difference S(p, q): the top q of the safety scores without the top p of the utility scores.

# %%
sets = {
    "safety-critical (p 5 %, q 2 %)": neurons.set_difference(safety, utility, p=0.05, q=0.02),
    "top safety 1 %": safety.top(0.01),
    "top utility 1 %": utility.top(0.01),
}
for name, mask in sets.items():
    print(f"{name}: {mask.count:,} weights, {mask.density:.2%}")

# %% [markdown]
# How stable is such a set? The same choice on two halves of the data is the floor under every overlap.

# %%
data = prompts.packaged("harmful", split="train").sample(64, seed=0)
floor = neurons.noise_floor(lambda half: neurons.snip(model, half).top(0.01), data, splits=2)
print(f"two halves of the data: Jaccard {floor.halves}; by chance {floor.halves_chance:.3f}")

# %% [markdown]
# Now remove each set, and matched random ones. Five draws keep this page quick; use twenty or more.

# %%
study = tamperlens.brittleness(model, sets, draws=5, limit=24, questions=6, decoding=Decoding(24))
study.plot()

# %%
print(study.summary())

# %% [markdown]
# `analyses/safety_neurons.py` makes the whole (p, q) table and ActSVD's rank edits. Read
# [what these numbers cannot tell](../validity.md) before you write that a set *carries* safety.

# %% [markdown]
# ## The same on your model
#
# Only the model and the responses change; the packaged English sets stand in for what is not given:
#
# ```python
# model = tamperlens.load("Qwen/Qwen2.5-0.5B-Instruct")
# safety = prompts.read("my-refusals.jsonl")  # prompts with the refusals that the model gives
# utility = prompts.packaged("english-harmless")  # or pairs of your own
# ```
