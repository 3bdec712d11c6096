"""Parts of the brittleness study: `conditions` (one model state measured), `effects` (sets beside controls)."""
