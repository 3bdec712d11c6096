"""Parts of the planted-truth study: `scoring` (against the truth), `methods` (every localiser), `causal`."""
