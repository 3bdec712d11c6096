# %% [markdown]
# # 1. Audit a model
#
# One call asks everything twice: before an attack and after it. Which harmful requests are refused, which
# harmless ones, what can the model still do, where is its refusal direction, and what does removing that
# direction do? The attack here is fifteen examples of harmful compliance whose content is withheld.
#
# Everything runs on the embedded organism (1.3 million parameters, a real Llama). A folder or a hub id in the
# place of `"organism"` audits that model on plain-English prompts.

# %%
import tamperlens

result = tamperlens.audit("organism", out="runs/tutorial-audit", limit=60, resume=True, progress=False)
print(result.headline)

# %% [markdown]
# Every rate has n and an interval. Degenerate answers count neither as refusal nor as compliance.

# %%
result.plot()

# %%
shown = result.measures[result.measures["measure"].isin(["refusal_rate", "degenerate_rate"])]
shown[["measure", "set", "stage", "value", "low", "high", "n"]].round(3)

# %% [markdown]
# Changes are tested on the same prompts (exact McNemar), with Holm's correction over all of them.

# %%
result.changes[["measure", "set", "difference", "low", "high", "n", "p", "p_holm"]].round(4)

# %% [markdown]
# The run folder holds `report.html` (one page that opens offline), `measures.csv`, `completions.csv`, the
# direction and a manifest with versions, seeds and hashes. An interrupted audit goes on with `resume=True`.

# %%
print(*sorted(path.name for path in result.folder.iterdir()), sep="\n")

# %% [markdown]
# On the command line the same is `tamperlens audit organism --out runs/tutorial-audit --limit 60`.

# %% [markdown]
# ## The same on your model
#
# A folder or a hub id; `device="cuda"`, and your own prompts if you have them:
#
# ```python
# result = tamperlens.audit("Qwen/Qwen2.5-0.5B-Instruct", device="auto", limit=60)
# print(result.headline)
# ```
