"""Lightning callbacks: what a training run shows while it runs, and how it stops and goes on."""
