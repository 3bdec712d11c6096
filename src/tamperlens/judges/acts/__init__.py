"""The default judge: what the sentences of an answer do.

Contents:
- `judge`: `ActsJudge`, its coefficients and explanations.
- `scope` (what an answer says in its own voice), `lexicon` (phrases to acts), `features` (what is weighed).
The recipe of its coefficients is `docs/tools/judge_training/`.
"""

from tamperlens.judges.acts.judge import ActsExplanation, ActsJudge, ActsWeights

__all__ = ["ActsExplanation", "ActsJudge", "ActsWeights"]
