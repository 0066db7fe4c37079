"""Training losses, one per file, and the schedule of λ, the weight of the object-centric loss."""
