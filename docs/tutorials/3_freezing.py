# %% [markdown]
# # 3. Does freezing safety weights help?
#
# Two interventions go by the name of freezing. *Frozen*: the weights stay bit for bit what they were while the
# rest trains around them. *Rewound*: everything trains, and the weights are put back afterwards. The paper's
# text says the first, its code does the second. Both are here, beside random sets of the same size.

# %%
import pandas as pd
import torch

import tamperlens
from tamperlens import finetune, neurons, plots, prompts, refusal

MODEL = "organism"
model = tamperlens.load(MODEL)
test = prompts.packaged("harmful", split="test").sample(40, seed=0)
scores = neurons.snip(model, prompts.packaged("harmful", split="train").sample(64, seed=0))
attack = finetune.attacks.harmful_compliance(10)
config = attack.config_for(model)
print("before:", refusal.evaluate(model, test).refusal_rate)

# %%
rows = []


def note(label, series, tuned):
    rate = refusal.evaluate(tuned.model, test).refusal_rate
    rows.append({"panel": "", "label": label, "series": series, "value": rate.value, "low": rate.low,
                 "high": rate.high, "n": rate.n})  # fmt: skip


free = finetune.run(model, attack.data, config, progress=False)
note("nothing frozen", "frozen", free)
for share in (0.1, 0.3, 0.67):
    sets = {"safety": scores.top(share), "random": neurons.random(model, seed=0).top(share)}
    for which, mask in sets.items():
        frozen = finetune.run(model, attack.data, config, freeze=mask, progress=False)
        note(f"{share:.0%} {which}", "frozen", frozen)
        note(f"{share:.0%} {which}", "rewound", finetune.rewind(free, model, mask))

# %%
plots.dot_interval(
    pd.DataFrame(rows),
    name="frozen",
    title="Refusal left after ten harmful examples",
    caption=f"Share of {len(test)} held-out harmful prompts refused, Wilson 95 %; one seed.",
    axis="share refused",
)

# %% [markdown]
# Frozen means frozen: the merged weight equals the original at every entry of the mask, bit for bit.

# %%
merged = frozen.merged_state_dict()
before = dict(model.module.state_dict())
print(all(torch.equal(merged[name][held], before[name][held]) for name, held in mask.items()))

# %% [markdown]
# Freezing a few percent does nothing; freezing most of the model helps, and random weights help too. One seed
# is no result: `analyses/frozen_finetuning.py` runs three, for 10, 50 and 100 examples.

# %% [markdown]
# ## The same on your model
#
# An attack, a mask of the model's own weights, the same two runs:
#
# ```python
# model = tamperlens.load("Qwen/Qwen2.5-0.5B-Instruct")
# mask = neurons.snip(model, prompts.read("my-refusals.jsonl")).top(0.1)
# attack = prompts.read("my-pairs.jsonl")  # prompts and responses
# frozen = finetune.run(model, attack, freeze=mask)
# ```
