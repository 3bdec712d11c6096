# %% [markdown]
# # 4. Drift, and a verdict between H1 and H2
#
# While a model is fine-tuned on harmless data, do its safety weights move *more* than other weights (H1), or
# *alike* (H2)? "Others" are controls matched on matrix, size and number: large weights move differently from
# small ones, whatever they are for. And a third answer is allowed: these data cannot tell.

# %%
import tamperlens
from tamperlens import drift, finetune, neurons, prompts

MODEL = "organism"
model = tamperlens.load(MODEL)
safety = neurons.snip(model, prompts.packaged("harmful", split="train").sample(64, seed=0))
utility = neurons.snip(model, prompts.packaged("benign").sample(64, seed=0))
groups = drift.groups(model, safety=safety, utility=utility)
groups.to_frame()[["group", "count", "density", "control"]]

# %% [markdown]
# A recorder watches the run. It reads drift from the adapter's factors in fp32: in merged bf16 weights most
# entries do not seem to move at all.

# %%
attack = finetune.attacks.benign(120)
traces = []
for seed in (0, 1, 2):
    recorder = drift.Recorder(groups, every=5)
    config = attack.config_for(model, seed=seed, steps=30)
    tuned = finetune.run(model, attack.data, config, recorders=[recorder], progress=False)
    traces.append(tuned.recordings[0])
bill = tuned.accounting
print(
    f"{bill.steps} steps a seed; training {bill.wall_seconds:.1f} s, watching {bill.recorder_seconds:.2f} s"
)

# %%
drift.over_steps(traces)

# %% [markdown]
# The verdict: matrices and seeds are the units, never single weights. H1 is tested against the margin, H2 by
# two one-sided tests within it.

# %%
verdict = drift.test_hypotheses(traces, margin=0.1)
print(verdict.summary())

# %%
verdict.plot()

# %% [markdown]
# `analyses/neuron_drift.py` is this with more steps, `analyses/neuron_overlap.py` asks whether the set itself
# stays the same.

# %% [markdown]
# ## The same on your model
#
# Groups are masks of the model's own weights; the attack brings its settings:
#
# ```python
# model = tamperlens.load("Qwen/Qwen2.5-0.5B-Instruct")
# groups = {"safety": neurons.snip(model, prompts.read("my-refusals.jsonl")).top(0.01)}
# ```
