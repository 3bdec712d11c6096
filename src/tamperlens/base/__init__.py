"""What every subpackage speaks. Results and their files, statistics, errors, run folders, protocols.

Contents: `errors`, `files` (atomic writes, hashes), `results` (save/load/to_frame), `stats` (intervals and
paired tests), `registry`, `protocols` (Judge, Recorder, Verdict), `runs` (run folders and manifests),
`logits` (refusal metric, KL divergence).
"""
