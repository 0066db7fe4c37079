"""The page: its components and events, and the application that serves it."""

import html
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from PIL import ImageOps
from starlette.middleware import Middleware

from eagle.data.bundled import bundled_photographs
from eagle.data.images import read_photograph
from eagle.demo.answers import data_url
from eagle.demo.handlers import Handlers
from eagle.demo.model import Model
from eagle.demo.privacy import Privacy
from eagle.demo.uploads import MOST_BYTES

TITLE = "EAGLE: unsupervised segmentation"
OPACITY = 0.5
THUMBNAIL = (144, 96)
# What the server remembers of visitors: at most this many, each for this many seconds after the last segmentation.
MOST_VISITORS = 16
REMEMBERED = 3600
MOST_WAITING = 20
VECTORS_NOTE = (
    "Eigenvectors of the Laplacian of code and colour affinity, by ascending eigenvalue, without the constant one. "
    "Patches of one colour belong together; each picture has its own colour range."
)
CUE_NOTE = (
    "EiCue: the patches by their eigenvectors, clustered with the trained codebook. Training learns objects from it. "
    "Colours are comparable between these pictures only."
)


def build_page(handlers: Handlers, checkpoint: str) -> gr.Blocks:
    """The components and their events.

    Args:
        handlers: what the events call.
        checkpoint: name to show.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(REMEMBERED, REMEMBERED)) as page:
        state = gr.State(None, time_to_live=REMEMBERED)
        names = gr.JSON({}, visible=False)
        gr.HTML(_text("heading.html").replace("CHECKPOINT", html.escape(checkpoint)), elem_id="heading")
        picker = _component("picker", bundled=_thumbnails(), most_bytes=MOST_BYTES)
        with gr.Row(elem_id="settings", equal_height=True):
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", elem_id="opacity")
            res = _resolution(handlers.model)
            crf = gr.Checkbox(False, label="Refine borders (CRF)", elem_id="crf")
            download = gr.Button("Download masks", variant="primary", elem_id="download")
        with gr.Tabs(elem_id="views"):
            with gr.Tab("Clusters"):
                stage = _component("stage")
            with gr.Tab("Eigenvectors"):
                vectors = _component("panels", "vectors", note=VECTORS_NOTE)
            with gr.Tab("EiCue"):
                cue = _component("panels", "cue", note=CUE_NOTE)
        package = gr.HTML(html_template="", js_on_load=_text("package.js"), visible="hidden")

        # One computation at a time, whoever asks.
        on_model: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
        results = [state, stage]
        changed = {"trigger_mode": "always_last", **on_model}
        shown = [
            picker.upload(handlers.uploaded, [crf, res], results, **on_model),
            picker.select(handlers.bundled, [crf, res], results, **on_model),
            res.change(handlers.again, [state, crf, res], results, **changed),
        ]
        for event in shown:
            event.success(handlers.decomposed, [state, res], [vectors, cue], **on_model)
        crf.change(handlers.again, [state, crf, res], results, **changed)
        opacity.change(None, opacity, js="(value) => window.eagle.setOpacity(value)")
        with_names = "(state, names, opacity) => [state, window.eagle.names(), opacity]"
        inputs = [state, names, opacity]
        download.click(handlers.packed, inputs, package, js=with_names, api_visibility="private")

        def forget(request: gr.Request) -> None:
            """Drop what is kept of a visitor who has closed the page; Gradio alone would keep it for an hour."""
            page.state_holder.delete_state(str(request.session_hash))

        page.unload(forget)
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
    # Gradio's secondary text, accents and check boxes are too pale to read.
    theme = theme.set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
        checkbox_border_color="*neutral_500", checkbox_border_color_dark="*neutral_400",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
    )  # fmt: skip
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build_page(Handlers(model, folder), checkpoint),
        "/",
        app_kwargs={"middleware": [Middleware(Privacy)]},
        footer_links=[], run_history=False, show_error=False, max_file_size=MOST_BYTES, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, theme=theme, css=_text("style.css"),
    )  # fmt: skip


def _component(script: str, elem_id: str = "", **props: Any) -> gr.HTML:
    """A component of our own: ``SCRIPT.html`` with the behaviour of ``SCRIPT.js``."""
    template, behaviour = _text(f"{script}.html"), _text(f"{script}.js")
    named = elem_id or script
    return gr.HTML(html_template=template, js_on_load=behaviour, elem_id=named, apply_default_css=False, **props)


def _resolution(model: Model) -> gr.Dropdown:
    default = model.default_resolution
    choices = [(f"{size} pixels{' (default)' if size == default else ''}", size) for size in model.resolutions]
    label = "Resolution (short side at the model)"
    return gr.Dropdown(choices, value=default, label=label, filterable=False, elem_id="res")


def _thumbnails() -> list[dict[str, str]]:
    """Name and small picture of each bundled photograph."""
    listed = []
    for path in bundled_photographs():
        small = ImageOps.fit(read_photograph(path), THUMBNAIL)
        listed.append({"name": path.stem, "picture": data_url(small, "jpeg")})
    return listed


def _text(name: str) -> str:
    """A file beside this one."""
    return (files(__package__) / name).read_text(encoding="utf-8")
