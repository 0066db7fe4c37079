"""Fit a tree of clusters to a trained model, without labels: ``python fit_clusters.py checkpoint=RUN/last.ckpt``."""

from eagle.commands.runs import fit_clusters_main

if __name__ == "__main__":
    fit_clusters_main()
