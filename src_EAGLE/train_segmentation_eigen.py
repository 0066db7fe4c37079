"""Train EAGLE: ``python train_segmentation_eigen.py [--config-name NAME] [key=value …]``."""

from eagle.commands.runs import train_segmentation_main

if __name__ == "__main__":
    train_segmentation_main()
