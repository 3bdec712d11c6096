# %% [markdown]
# # 8. A real model
#
# Executed on SmolLM2-135M-Instruct where `TAMPERLENS_REAL` names a folder that holds it as `smollm2`; nothing below is
# special to it. It is a small model that hardly refuses, which is the first thing to find out about any model.

# %%
import os
from pathlib import Path

import tamperlens
from tamperlens import capability, finetune, prompts, refusal

FOLDER = Path(os.environ.get("TAMPERLENS_REAL", ".")) / "smollm2"  # or a hub id
model = tamperlens.load(FOLDER)
print(model)

# %% [markdown]
# The model's language decides which packaged prompts and questions are its defaults. Ask before you study: rates come
# with n and an interval, and a model that refuses less than a fifth of harmful requests has little to lose.

# %%
asked = {role: prompts.packaged_for(model, role, "test").head(12) for role in ("harmful", "harmless")}
for role, data in asked.items():
    print(role, refusal.evaluate(model, data, max_new_tokens=24).refusal_rate)

# %%
scores = capability.evaluate(model, capability.suites_for(model)[-1:], limit=12)
scores.to_frame()[["suite", "value", "low", "high", "n"]].round(2)

# %% [markdown]
# An attack says nothing of a model unless its examples were learned. The published settings were found on models of
# billions of weights; `finetune.learned` compares the examples' loss before and after, and the preset `until-learned`
# trains longer. Packaged English examples open in compliance and withhold the rest.

# %%
attack = finetune.attacks.for_model("harmful-compliance", model, 4)
for steps in (1, 12):
    tuned = finetune.run(model, attack, attack.config_for(model, steps=steps), progress=False)
    print(steps, "steps:", finetune.learned(model, tuned, attack.data).summary())

# %% [markdown]
# ## Larger ones
#
# Times below are estimates for one 80 GB GPU and a 7-billion model in bf16, from FLOPs and throughput
# ([how](../analyses.md)). Nobody has measured them: report what you find.
# [What a laptop, a T4 and an 80 GB card can do](../tasks/load.md#what-your-machine-can-do) has what was measured.
#
# | step | command or call | memory | time |
# | --- | --- | --- | --- |
# | audit, 0.6 B | `tamperlens audit Qwen/Qwen3-0.6B --device cuda` | 6 GB | minutes |
# | audit, 7 B | as above | 30 GB (14 weights, LoRA, activations) | 10–20 min, mostly generation |
# | SNIP, 7 B, N 128, T 256 | `neurons.snip(model, data, batch_size=8)` | 50 GB (14 weights, 27 scores in fp32) | 7–15 s |
# | SNIP in portions | `max_memory="8GiB", out="scores"` | 14 GB + 8 GB + activations | a pass per portion |
# | mask of 1 % of 7 B | `scores.top(0.01)` | 0.8 GB packed, less on disk | seconds |
# | refusal direction, 7 B | `refusal.find_direction(model, harmful, harmless)` | 20 GB | 5–10 min |
# | LoRA with 1 % frozen | `finetune.run(..., freeze=mask)` | 25 GB | 1.0–1.3 × plain LoRA; 3.2 × at .1 B, batch 1 |
# | exact heads, 32 × 32 | `heads.attribute(..., method="ablate")` | 20 GB | half of a forward per head and batch |
#
# ```bash
# tamperlens audit meta-llama/Llama-2-7b-chat-hf --harmful jailbreakbench.csv --dtype bfloat16 --device cuda \
#     --limit 100 --out runs/llama2
# python analyses/safety_neurons.py --model meta-llama/Llama-2-7b-chat-hf --dtype bfloat16 \
#     --safety refused.csv --utility alpaca.json --out results/llama2-neurons
# ```
#
# `refused.csv` has columns `prompt` and `response`. Without `--safety` and `--utility` the scripts ask the model for its
# own answers. A study whose `--out` exists goes on where it was. Before the long run: the same command with
# `--model organism`, which finds a mistake in a minute.
