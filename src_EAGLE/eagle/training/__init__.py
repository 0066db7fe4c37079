"""A training run: the run itself, going on with one, loggers, SLURM, and what is recorded about it."""
