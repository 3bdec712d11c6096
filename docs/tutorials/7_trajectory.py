# %% [markdown]
# # 7. Trajectory: at which step does it break?
#
# Several recorders watch one run, so that everything is keyed to the same training step: what the weights do, where
# the direction points, which heads write it, and whether the model still refuses. The last one is written here: a
# recorder is any class with `start`, `record` and `finish`.

# %%
import pandas as pd

import tamperlens
from tamperlens import drift, finetune, heads, neurons, prompts, refusal

MODEL = "organism"
model = tamperlens.load(MODEL)
harmful = prompts.packaged("harmful", split="train")
harmless = prompts.packaged("harmless", split="train")
direction = refusal.find_direction(model, harmful, harmless)
test = prompts.packaged("harmful", split="test").sample(40, seed=0)


# %%
class RefusalRecorder:
    """The share of harmful prompts refused, every few steps."""

    name, every = "refusal", 2

    def start(self, model):
        self.rows = []

    def record(self, step, model):
        rate = refusal.evaluate(model, test, max_new_tokens=24).refusal_rate
        self.rows.append({"step": step, "value": rate.value, "low": rate.low, "high": rate.high, "n": rate.n})
        return self.rows[-1:]

    def finish(self):
        return pd.DataFrame(self.rows)


# %%
safety = neurons.snip(model, harmful.sample(64, seed=0))
utility = neurons.snip(model, prompts.packaged("benign").sample(64, seed=0))
groups = drift.groups(model, safety=safety, utility=utility)
recorders = [
    RefusalRecorder(),
    refusal.DirectionRecorder(direction, harmful, harmless, every=2),
    heads.HeadRecorder(test, every=2, target="refusal_tokens", tokens=direction.tokens, method="gradient"),
    drift.Recorder(groups, every=2),
]
attack = finetune.attacks.harmful_compliance(15)
tuned = finetune.run(model, attack.data, attack.config_for(model), recorders=recorders, progress=False)
rates, directions, head_trace, weights = tuned.recordings
rates.round(3)

# %% [markdown]
# Everything by step in one table. The projection gap is the distance between harmful and harmless prompts along the
# base's direction.

# %%
together = rates[["step", "value"]].rename(columns={"value": "refused"})
cosine = directions.of("cosine")[["step", "value"]].rename(columns={"value": "cosine to base direction"})
moved = weights.to_frame()
moved = moved[(moved["group"] == "safety-critical") & (moved["measure"] == "relative_l2")]
moved = moved.groupby("step")["value"].median().rename("median drift, safety-critical").reset_index()
together.merge(cosine, on="step").merge(moved, on="step").round(3)

# %%
drift.over_steps(weights)

# %%
change = head_trace.compare(0, int(head_trace.steps[-1]))
print("heads that changed most:", change.most_changed(3), "cosine of all scores:", round(change.cosine, 3))

# %% [markdown]
# The order in which things break is a description of this run. With several seeds and a finer grid it becomes a
# finding; see [validity](../validity.md).
