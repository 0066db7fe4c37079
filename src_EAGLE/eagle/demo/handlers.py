"""What happens when a visitor uses the page; mistakes become messages."""

import base64
import html
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from eagle.data.bundled import bundled_photographs
from eagle.data.images import read_photograph
from eagle.demo.answers import cue_pictures, eigenvector_pictures, shown_segmentation
from eagle.demo.model import Model
from eagle.demo.parcel import file_name, parcel
from eagle.demo.uploads import read_upload
from eagle.errors import EagleError, one_line
from eagle.inference.segmentation import Segmentation

NOTHING_KEPT = "Choose a photograph first. The server forgets it when the page is closed, or after an hour."


@dataclass(frozen=True)
class Handlers:
    """What the components call; all that is kept of a visitor is in the arguments and results.

    Attributes:
        model: computes.
        folder: where uploads arrive.
    """

    model: Model
    folder: Path

    def uploaded(self, crf: bool, res: int, event: gr.EventData) -> tuple[Segmentation, dict[str, Any]]:
        """Segment an uploaded photograph; ``event`` has its ``path`` here and its ``name`` there."""
        with _messages():
            photograph = read_upload(Path(str(event.path)), self.folder, str(event.name))
            return self._segmented(photograph, Path(str(event.name)).stem, crf, res)

    def bundled(self, crf: bool, res: int, event: gr.EventData) -> tuple[Segmentation, dict[str, Any]]:
        """Segment the bundled photograph ``event.name``."""
        with _messages():
            path = next(path for path in bundled_photographs() if path.stem == event.name)
            return self._segmented(read_photograph(path), path.stem, crf, res)

    def again(self, result: Segmentation | None, crf: bool, res: int) -> tuple[Any, Any]:
        """Segment the visitor's photograph with other settings."""
        if result is None:
            gr.Info("Applies to the photograph that you choose next.")
            return gr.skip(), gr.skip()
        with _messages():
            return self._segmented(result.photograph, result.name, crf, res)

    def decomposed(self, result: Segmentation | None, res: int) -> tuple[Any, Any]:
        """Pictures of the eigenvectors, and of EiCue."""
        if result is None:
            return gr.skip(), gr.skip()
        with _messages():
            decomposition = self.model.decompose(result.photograph, res)
        photograph = result.photograph
        return eigenvector_pictures(photograph, decomposition), cue_pictures(photograph, decomposition)

    def packed(self, result: Segmentation | None, names: dict[str, str], opacity: float) -> dict[str, Any]:
        """The zip to download, as the page's script saves it; the number makes every download a new one."""
        if result is None:
            raise gr.Error(NOTHING_KEPT, print_exception=False)
        content = parcel(result, {int(i): str(name) for i, name in names.items()}, opacity)
        name = f"{file_name(result.name)}_masks.zip"
        return {"name": name, "zip": base64.b64encode(content).decode(), "number": time.time_ns()}

    def _segmented(
        self, photograph: Image.Image, name: str, crf: bool, res: int
    ) -> tuple[Segmentation, dict[str, Any]]:
        result = self.model.segment(photograph, name, res, crf)
        return result, shown_segmentation(result)


@contextmanager
def _messages() -> Iterator[None]:
    """Show what a visitor can mend as a message."""
    try:
        yield
    except EagleError as error:
        # Gradio renders messages as HTML, and this one has the visitor's file name.
        raise gr.Error(html.escape(one_line(error)), print_exception=False) from error
