"""Which measures work on which newer architectures: measured on small random models of each.

python docs/tools/families.py            # writes docs/families.md (minutes); tests/models hold each row
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "families.md"
sys.path.insert(0, str(ROOT / "tests" / "support"))
HEAD = """# Families and measures

Loading finds a model's parts by attribute names and shapes and confirms them by numbers: block input,
attention (or what stands in its place) and feed-forward part must add up to the block's output, norms must
be where they are said to be, heads must add up to the attention's output. Everything works on GPT-2, GPT-
NeoX, Llama, Mistral, Qwen2, Qwen3, Gemma 1/2/3, Phi-3 and OLMo-2. Those below are newer or less common;
each row was measured on a small model with random weights of transformers' own architecture: the numbers
are right, no trained model was studied.

- *generation*: the text of transformers' own greedy decoding, batched as one by one.
- *direction*: mean activations, batched as one by one. *ablation*: nothing is left along the direction.
- *SNIP*: the projections that `neurons.snip` scores ("yes": all of the model). *SNIP of experts*:
  `neurons.expert_snip` equals a loop of single examples.
- *heads*: exact ablation of every head. Where some blocks have none that can be read (linear attention,
  convolutions, state spaces, latent attention), heads of the others can be ablated one by one, and measures
  of all heads say that there are no heads here.

"""


def row(family: str, found: dict[str, str]) -> str:
    """A family's line of the table."""
    from newer_families import MEASURES

    return f"| {family} | {' | '.join(found[name] for name in MEASURES)} |"


def main() -> None:
    """Write the page."""
    from newer_families import MEASURES, NEWER, make, measured

    lines = [f"| family | {' | '.join(MEASURES)} |", f"| --- |{' --- |' * len(MEASURES)}"]
    for family in NEWER:
        try:
            lines.append(row(family, measured(make(family))))
        except Exception as error:  # named here; the page holds what works
            print(f"{family}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        print(lines[-1], flush=True)
    PAGE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
