"""Training losses, one to a file, and λ, which weighs the object-centric one."""
