"""What did this fine-tuning do? A base and its tuned models by every instrument, with a verdict for each.

    found = tamperlens.compare("organism", "runs/mine/adapter", out="runs/compare")
    print(found.summary())

Contents: `running` (`compare`), `result` (`Comparison`, `Comparisons`), `bench` (prompts and the base,
measured once), the instruments `behaviour`, `inside`, `lens` and `weights`, `readings` (from a number to a
verdict), `words`, `tables`, `figures`, `page`, `export`. `studies.opening` opens what is compared.
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.compare.lens import DifferenceLens, difference_lens
from tamperlens.studies.compare.readings import Reading
from tamperlens.studies.compare.result import Comparison, Comparisons
from tamperlens.studies.compare.running import compare

__all__ = ["Comparison", "Comparisons", "DifferenceLens", "Reading", "compare", "difference_lens"]

guard(globals(), __all__)
