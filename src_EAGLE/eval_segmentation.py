"""Evaluate checkpoints: ``python eval_segmentation.py CHECKPOINT … [key=value …]``."""

from eagle.commands.runs import eval_segmentation_main

if __name__ == "__main__":
    eval_segmentation_main()
