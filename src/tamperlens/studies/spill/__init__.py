"""Parts of the spillover study: `probes` (what is asked, one model measured), `tables` (two models)."""
