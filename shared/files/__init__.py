"""Files: checkpoints, recordings, atomic writing and what is said of a damaged one."""
