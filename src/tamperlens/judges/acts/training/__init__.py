"""Training and measuring the judge of acts: our own sentences by phrase family, the fit, the measurements."""
