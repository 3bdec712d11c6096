"""Parts of the brittleness study: `conditions` (a model state measured), `effects` (sets beside controls)."""
