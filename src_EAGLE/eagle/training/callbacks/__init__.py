"""Lightning callbacks: progress, figures, checkpoints and stops of a run."""
