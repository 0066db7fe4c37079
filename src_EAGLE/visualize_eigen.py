"""Draw eigenvectors, EiCue and clusters: ``python visualize_eigen.py IMAGE … [checkpoint=FILE] [key=value …]``."""

from eagle.commands.photographs import visualize_eigen_main

if __name__ == "__main__":
    visualize_eigen_main()
