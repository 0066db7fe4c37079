"""How far a run is, in batches of the whole run."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar


class RunProgressBar(TQDMProgressBar):
    """One bar from the first batch to ``max_steps``; a resumed run's begins where it goes on."""

    @property
    def total_train_batches(self) -> int:
        """Length of the run in batches."""
        return self.trainer.max_steps

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin the bar."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self.train_description)
        self.train_progress_bar.initial = self.train_progress_bar.n = trainer.global_step
