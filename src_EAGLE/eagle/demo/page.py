"""The page: components, what happens when they are used, and the application that serves them."""

import base64
import html
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from PIL import Image, ImageOps
from starlette.middleware import Middleware

from eagle.data.bundled import bundled_photographs
from eagle.data.images import read_photograph
from eagle.demo.answers import cue_pictures, data_url, eigenvector_pictures, shown_segmentation
from eagle.demo.model import Model
from eagle.demo.parcel import file_name, parcel
from eagle.demo.privacy import Privacy
from eagle.demo.uploads import MOST_BYTES, read_upload
from eagle.errors import EagleError, one_line
from eagle.inference.segmentation import Segmentation

TITLE = "EAGLE: unsupervised segmentation"
OPACITY = 0.5
THUMBNAIL = (144, 96)
# What the server remembers of visitors: at most this many, each for this many seconds after the last use.
MOST_VISITORS = 16
REMEMBERED = 3600
MOST_WAITING = 20
VECTORS_NOTE = (
    "Eigenvectors of the Laplacian of code and colour affinity, from the second smallest eigenvalue on. Each has its "
    "own colour range: equal colours belong together."
)
CUE_NOTE = (
    "EiCue: the eigenvectors, clustered by the trained codebook. It is what the model learns from. Colours are "
    "comparable between these two pictures only."
)


@dataclass(frozen=True)
class Answers:
    """What the components call; all that is kept of a visitor is in the arguments and results.

    Attributes:
        model: computes.
        folder: where uploads arrive.
    """

    model: Model
    folder: Path

    def uploaded(self, crf: bool, res: int, event: gr.EventData) -> tuple[Segmentation, dict[str, Any]]:
        """Segment an uploaded photograph; ``event`` has its ``path`` here and its ``name`` there."""
        with _messages("This file cannot be used"):
            photograph = read_upload(Path(str(event.path)), self.folder, str(event.name))
            return self._segmented(photograph, Path(str(event.name)).stem, crf, res)

    def bundled(self, crf: bool, res: int, event: gr.EventData) -> tuple[Segmentation, dict[str, Any]]:
        """Segment the bundled photograph ``event.name``."""
        with _messages("This photograph cannot be used"):
            path = next(path for path in bundled_photographs() if path.stem == event.name)
            return self._segmented(read_photograph(path), path.stem, crf, res)

    def again(self, result: Segmentation | None, crf: bool, res: int) -> tuple[Any, Any]:
        """Segment the visitor's photograph with other settings; nothing without a photograph."""
        if result is None:
            return gr.skip(), gr.skip()
        with _messages("This does not work"):
            return self._segmented(result.photograph, result.name, crf, res)

    def decomposed(self, result: Segmentation | None, res: int) -> tuple[Any, Any]:
        """Pictures of the eigenvectors, and of EiCue."""
        if result is None:
            return gr.skip(), gr.skip()
        with _messages("No eigenvectors"):
            decomposition = self.model.decompose(result.photograph, res)
        return eigenvector_pictures(decomposition), cue_pictures(decomposition)

    def packed(self, result: Segmentation | None, names: dict[str, str], opacity: float) -> dict[str, Any]:
        """The zip to download, as the page's script saves it; the number makes every download a new one."""
        if result is None:
            raise gr.Error("Choose a photograph first; it is forgotten after an hour.", print_exception=False)
        content = parcel(result, {int(i): str(name) for i, name in names.items()}, opacity)
        name = f"{file_name(result.name)}_masks.zip"
        return {"name": name, "zip": base64.b64encode(content).decode(), "number": time.time_ns()}

    def _segmented(
        self, photograph: Image.Image, name: str, crf: bool, res: int
    ) -> tuple[Segmentation, dict[str, Any]]:
        result = self.model.segment(photograph, name, res, crf)
        return result, shown_segmentation(result)


@contextmanager
def _messages(title: str) -> Iterator[None]:
    """Show what a visitor can mend as a message."""
    try:
        yield
    except EagleError as error:
        # Gradio renders messages as HTML, and this one has the visitor's file name.
        raise gr.Error(html.escape(one_line(error)), title=title, print_exception=False) from error


def build_page(answers: Answers, checkpoint: str) -> gr.Blocks:
    """The components and their events.

    Args:
        answers: what the events call.
        checkpoint: name to show.
    """
    model = answers.model
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, REMEMBERED)) as page:
        state = gr.State(None, time_to_live=REMEMBERED)
        names = gr.JSON({}, visible=False)
        gr.HTML(_text("heading.html").replace("CHECKPOINT", html.escape(checkpoint)), elem_id="heading")
        picker = gr.HTML(
            html_template=_text("picker.html"), js_on_load=_text("picker.js"), elem_id="picker",
            apply_default_css=False, bundled=_thumbnails(), most_bytes=MOST_BYTES,
        )  # fmt: skip
        with gr.Row(elem_id="settings", equal_height=True):
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the colours", elem_id="opacity")
            res = gr.Dropdown(
                [(f"{size} pixels{' (default)' * (size == model.default_resolution)}", size) for size in model.resolutions],
                value=model.default_resolution, label="Short side that the model sees", filterable=False, elem_id="res",
            )  # fmt: skip
            crf = gr.Checkbox(False, label="Refine borders (CRF)", elem_id="crf")
            download = gr.Button("Download masks", variant="primary", elem_id="download")
        with gr.Tabs(elem_id="views"):
            with gr.Tab("Clusters"):
                stage = gr.HTML(
                    html_template=_text("stage.html"), js_on_load=_text("stage.js"), elem_id="stage",
                    apply_default_css=False,
                )  # fmt: skip
            with gr.Tab("Eigenvectors"):
                vectors = _panels(VECTORS_NOTE, "vectors")
            with gr.Tab("EiCue"):
                cue = _panels(CUE_NOTE, "cue")
        package = gr.HTML(html_template="", js_on_load=_text("package.js"), visible="hidden")
        on_model = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
        segment = partial(dict, outputs=[state, stage], **on_model)
        shown = [
            picker.upload(answers.uploaded, **segment(inputs=[crf, res])),
            picker.select(answers.bundled, **segment(inputs=[crf, res])),
            res.change(answers.again, **segment(inputs=[state, crf, res], trigger_mode="always_last")),
        ]
        crf.change(answers.again, **segment(inputs=[state, crf, res], trigger_mode="always_last"))
        for event in shown:
            event.success(answers.decomposed, [state, res], [vectors, cue], **on_model)
        opacity.change(None, opacity, js="(value) => window.eagle.setOpacity(value)")
        download.click(
            answers.packed, [state, names, opacity], package, api_visibility="private",
            js="(state, names, opacity) => [state, window.eagle.names(), opacity]",
        )  # fmt: skip
    page.state_session_capacity = MOST_VISITORS
    return page.queue(max_size=MOST_WAITING)


def application(model: Model, checkpoint: str, folder: Path) -> FastAPI:
    """The page as an ASGI application.

    Args:
        model: computes.
        checkpoint: name to show.
        folder: of uploads; GRADIO_TEMP_DIR must name it.
    """
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    # Fonts by name are the visitor's own; Gradio's default would be fetched from Google.
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=font, font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build_page(Answers(model, folder), checkpoint),
        "/",
        app_kwargs={"middleware": [Middleware(Privacy)]},
        footer_links=[], run_history=False, show_error=False, max_file_size=MOST_BYTES, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, theme=theme, css=_text("style.css"),
    )  # fmt: skip


def _panels(note: str, kind: str) -> gr.HTML:
    """A tab of pictures below a note."""
    return gr.HTML(
        html_template=_text("panels.html"), js_on_load=_text("panels.js"), elem_id=kind, apply_default_css=False,
        note=note,
    )  # fmt: skip


def _thumbnails() -> list[dict[str, str]]:
    """Name and small picture of each bundled photograph."""
    listed = []
    for path in bundled_photographs():
        small = read_photograph(path)
        small = ImageOps.fit(small, THUMBNAIL)
        listed.append({"name": path.stem, "picture": data_url(small, "jpeg")})
    return listed


def _text(name: str) -> str:
    """A file beside this one."""
    return (files(__package__) / name).read_text(encoding="utf-8")
