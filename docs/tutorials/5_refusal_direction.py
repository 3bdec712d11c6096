# %% [markdown]
# # 5. The refusal direction through fine-tuning
#
# Find the direction that refusal goes by (Arditi et al. 2024), check what it *does* on prompts that had no part
# in finding it, and follow it while the model is attacked.

# %%
import tamperlens
from tamperlens import finetune, prompts, refusal

MODEL = "organism"
model = tamperlens.load(MODEL)
harmful = prompts.packaged("harmful", split="train")
harmless = prompts.packaged("harmless", split="train")
direction = refusal.find_direction(model, harmful, harmless)
print(f"layer {direction.layer}, position {direction.position}, passed the filters: {direction.passed}")

# %%
direction.plot()

# %% [markdown]
# What it does: ablated, harmful requests are answered; added, harmless ones are refused. Random directions of
# the same norm do neither.

# %%
test = {name: prompts.packaged(name, split="test").sample(40, seed=0) for name in ("harmful", "harmless")}
check = refusal.causal_check(model, direction, test["harmful"], test["harmless"])
frame = check.to_frame()
overall = frame[(frame["outcome"] == "refusal") & (frame["category"] == "all")]
overall[["condition", "set", "value", "low", "high", "n"]].round(3)

# %% [markdown]
# Now the attack, with a recorder. Layer, position and prompts stay those of the base: choosing the direction
# again at every checkpoint manufactures drift. The band is where other prompts of the base would have put the
# direction (split halves); `changed` asks on the same prompts whether the attack has turned it at all.

# %%
attack = finetune.attacks.harmful_compliance(15)
recorder = refusal.DirectionRecorder(direction, harmful, harmless, every=3)
tuned = finetune.run(model, attack.data, attack.config_for(model), recorders=[recorder], progress=False)
trace = tuned.recordings[0]
trace.plot()

# %%
measured = trace.of("cosine")[
    ["step", "value", "low", "high", "null_low", "within_prompt_band", "unchanged_low", "changed"]
]
measured.round(3)

# %%
print("refused before:", refusal.evaluate(model, test["harmful"]).refusal_rate)
print("refused after: ", refusal.evaluate(tuned.model, test["harmful"]).refusal_rate)

# %% [markdown]
# Refusal can be gone while the direction is nearly where it was: the attack need not turn it, only stop writing
# along it. `refusal.causal_transfer` asks whether the old direction still works in the new model, and
# `analyses/refusal_direction.py` puts every distance beside its null.

# %% [markdown]
# ## The same on your model
#
# Two sets of prompts, one that the model should refuse and one that it should answer:
#
# ```python
# model = tamperlens.load("Qwen/Qwen2.5-0.5B-Instruct")
# bad, good = (prompts.packaged_for(model, role, "train") for role in ("harmful", "harmless"))
# direction = refusal.find_direction(model, bad, good, n_train=64, n_val=16, progress=True)
# print(direction.passed, direction.flag)
# ```
