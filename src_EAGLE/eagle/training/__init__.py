"""Training runs: the run itself, resuming, loggers, SLURM, callbacks and the record of each run."""
