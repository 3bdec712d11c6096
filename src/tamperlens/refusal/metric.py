"""The two numbers behind direction selection; they live in `base`, because heads are scored by them too."""

from tamperlens.base.logits import kl_divergence as kl_divergence
from tamperlens.base.logits import refusal_metric as refusal_metric
