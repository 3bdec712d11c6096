# %% [markdown]
# # 7. Trajectory: at which step does it break?
#
# Weights, direction, heads, log-odds and answers, recorded on fixed held-out prompts at the same training steps, over
# several seeds. Then the question that such curves invite: what changes *first*? It is answered with intervals, or
# with "cannot tell".

# %%
import tamperlens
from tamperlens import drift, finetune, neurons, prompts, trajectory

MODEL = "organism"  # or a folder, or a hub id
model = tamperlens.load(MODEL)
safety = neurons.snip(model, prompts.packaged("harmful", split="train").sample(64, seed=0))
utility = neurons.snip(model, prompts.packaged("benign").sample(64, seed=0))
groups = drift.groups(model, safety=safety, utility=utility)
followed = {name: groups[name] for name in ("top safety", "control of top safety")}

attack = finetune.attacks.harmful_compliance(15)
steps = [0, 1, 2, 4, 6, 8, 10, 12, 16]
found = trajectory.record(
    model, attack, attack.config_for(model), every=steps, sampled=[0, 4, 6, 8, 12, 20], seeds=3,
    groups=followed, limit=24,
)  # fmt: skip
print(f"recording took {found.overhead:.1f} times the training; the default schedule is sparser")

# %%
result = trajectory.order(found)
print(result.summary())

# %%
found.plot(result)

# %% [markdown]
# Every number with its null where it has one:

# %%
shown = found.of("refusal rate", seed=0)[["step", "value", "low", "high", "n"]]
shown.round(3)

# %% [markdown]
# `trajectory.write_page("page.html", found, result)` makes a page with a step slider: measures, heads, layers and
# answers at that step. In a training script that is not ours, `tamperlens.Monitor` records the same as a callback
# ([how](../tasks/drift.md#in-your-own-training-script)). `analyses/alignment_trajectory.py` is this page with three
# seeds and a denser grid.
#
# What comes first is a statement about half-changes of these measures in this run. It is no cause; see
# [validity](../validity.md).

# %% [markdown]
# ## The same on your model
#
# In your own training script one line records the same:
#
# ```python
# from tamperlens import Monitor
#
# trainer.add_callback(Monitor("runs/monitor"))  # transformers and TRL
# # in a loop of your own: monitor.step(model, 0) first, monitor.step(model, step) after each optimiser step
# ```
