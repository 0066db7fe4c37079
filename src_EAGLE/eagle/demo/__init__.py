"""The web page of ``demo.py``: drop a photograph, see its clusters, eigenvectors and EiCue."""
