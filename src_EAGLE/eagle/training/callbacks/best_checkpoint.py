"""Writes ``best.ckpt``, and knows it again where the run's folder has moved."""

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which would take the first validation of a resumed run for the best one if the folder is another.

    Args:
        path: the checkpoint to write.
        monitor: the logged score that decides.
        mode: "max" or "min".
    """

    def __init__(self, path: Path, monitor: str, mode: str) -> None:
        super().__init__(path.parent, path.stem, monitor=monitor, mode=mode, enable_version_counter=False)
        self._path = path

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score over if its checkpoint came along; without it the next validation's is the best."""
        if self._path.is_file() and state_dict["best_model_score"] is not None:
            here = str(self._path.resolve())
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": here,
                "kth_best_model_path": here,
                "best_k_models": {here: state_dict["best_model_score"]},
            }
        super().load_state_dict(state_dict)
