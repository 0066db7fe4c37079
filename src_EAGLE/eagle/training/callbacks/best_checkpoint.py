"""Save ``best.ckpt``, also after the run folder has moved."""

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that keeps its best score after the run folder moved.

    Lightning's own would forget it and save the first validation of the resumed run as the best.

    Args:
        path: the checkpoint to write.
        monitor: name of the logged score to compare.
        mode: "max" or "min".
    """

    def __init__(self, path: Path, monitor: str, mode: str) -> None:
        super().__init__(path.parent, path.stem, monitor=monitor, mode=mode, enable_version_counter=False)
        self._path = path

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score if its checkpoint exists; otherwise the next validation counts as the best."""
        if self._path.is_file() and state_dict["best_model_score"] is not None:
            here = str(self._path.resolve())
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": here,
                "kth_best_model_path": here,
                "best_k_models": {here: state_dict["best_model_score"]},
            }
        super().load_state_dict(state_dict)
