"""Lightning callbacks: what a run shows while it runs, and how it stops and goes on."""
