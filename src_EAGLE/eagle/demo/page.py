"""The page: its components and events, and the application that serves it."""

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from eagle.config.refinement import RECOMMENDED
from eagle.demo.handlers import MOST_BYTES, Handlers
from eagle.demo.server import Privacy

HERE = Path(__file__).parent
KEPT = "Photographs are kept in the server's memory only, until you close this page."
TITLE = "EAGLE: unsupervised segmentation"
OPACITY = 0.5
REFINEMENTS = [("none", "none"), ("CRF", "crf"), ("spectral", "spectral"), ("spectral + CRF", "both")]
# What the server remembers of visitors: at most this many, each for this many seconds after the last segmentation.
MOST_VISITORS = 16
REMEMBERED = 3600
MOST_WAITING = 20
# Seconds after which an upload that nobody has read is deleted; it is read as soon as it is there.
UPLOADS_KEPT = 60
VECTORS_NOTE = (
    "Eigenvectors of the Laplacian of code and colour affinity, by ascending eigenvalue, without the constant one. "
    "Patches of one colour belong together; each picture has its own colour range."
)
CUE_NOTE = (
    "EiCue: the patches by their eigenvectors, clustered with the trained codebook. Training learns objects from it."
)
# The browser does these by itself.
SET_OPACITY = "(value) => document.body.style.setProperty('--opacity', value)"
FOCUS_NAME = "() => document.querySelector('#name textarea, #name input').select()"
SAVE = """async ({ name, url }) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await fetch(url)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""


def build_page(handlers: Handlers, checkpoint: str) -> gr.Blocks:
    """The components and their events.

    Args:
        handlers: what the events call.
        checkpoint: name to show.
    """
    kept = (UPLOADS_KEPT, UPLOADS_KEPT)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=kept) as page:
        shown, names = gr.State(None, time_to_live=REMEMBERED), gr.State({})
        fitted, most = handlers.clusters
        groups, fresh, tree = gr.State(handlers.cut(fitted)), gr.State(None), handlers.tree is not None
        gr.Markdown(f"# EAGLE segments photographs without labels\nModel: `{checkpoint}`. {KEPT}", elem_id="heading")
        with gr.Row(elem_id="picker"):
            picker = gr.File(show_label=False, file_types=["image"], height=112, elem_id="upload", scale=2)
            bundled = gr.Gallery(
                columns=8, object_fit="cover", allow_preview=False, interactive=False, show_label=False, buttons=[],
                elem_id="bundled", scale=5,
            )  # fmt: skip
        with gr.Row(elem_id="settings", equal_height=True):
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", elem_id="opacity", buttons=[])
            res = gr.Dropdown(
                handlers.resolutions, value=handlers.segmenter.cfg.val_res, label="Resolution (short side)",
                filterable=False, elem_id="res",
            )  # fmt: skip
            refine = gr.Dropdown(REFINEMENTS, value=RECOMMENDED, label="Refinement", filterable=False, elem_id="refine")
            n_clusters = gr.Slider(
                min(2, most), most, fitted, step=1, label="Clusters", visible=tree, elem_id="clusters", buttons=[]
            )
            download = gr.Button("Download masks", variant="primary", elem_id="download")
        with gr.Row(elem_id="editing", equal_height=True):
            name = gr.Textbox(
                label="Rename a cluster", placeholder="click it in the list", interactive=False, max_lines=1,
                elem_id="name",
            )  # fmt: skip
            join = gr.Dropdown(
                [], label="Join it with", filterable=False, interactive=False, visible=tree, elem_id="join"
            )
            split = gr.Button("Split it", interactive=False, visible=tree, elem_id="split")
        with gr.Tabs(elem_id="views"):
            with gr.Tab("Clusters"):
                stage = gr.AnnotatedImage(show_label=False, buttons=[], elem_id="stage")
            with gr.Tab("Eigenvectors"):
                gr.Markdown(VECTORS_NOTE)
                vectors = _patches("vectors")
            with gr.Tab("EiCue"):
                gr.Markdown(CUE_NOTE)
                cue = _patches("cue")
        parcel = gr.JSON(visible=False)

        # Without postprocessing: the pictures are data URLs, which need no files.
        plain: dict[str, Any] = {"postprocess": False, "api_visibility": "private"}
        # One computation at a time, whoever asks.
        on_model: dict[str, Any] = {**plain, "concurrency_limit": 1, "concurrency_id": "model"}
        settings, edited = [shown, groups, names, res, refine], [groups, names, shown, stage]
        draw: dict[str, Any] = {"fn": handlers.segmented, "inputs": settings, "outputs": [shown, stage], **on_model}
        draw_last = {**draw, "trigger_mode": "always_last"}
        page.load(handlers.thumbnails, None, bundled, **plain)
        arrived = picker.upload(handlers.uploaded, picker, shown, preprocess=False, concurrency_limit=4, **plain)
        for cleared in (arrived.success, arrived.failure):  # a new file can be dropped
            cleared(lambda: None, None, picker, **plain)
        clicked = bundled.select(handlers.bundled, None, shown, **plain)
        for drawn in (arrived.success(**draw), clicked.success(**draw), res.change(**draw_last)):
            drawn.success(handlers.decomposed, [shown, res], [vectors, cue], **on_model)
        refine.change(**draw_last)
        cut = n_clusters.change(handlers.cut, n_clusters, fresh, trigger_mode="always_last", preprocess=False, **plain)
        cut.success(handlers.moved, [fresh, groups, names], [groups, names], **plain).success(**draw)
        opacity.change(None, opacity, js=SET_OPACITY)
        pointed = stage.select(handlers.pointed, [shown, groups, names], [groups, name], **plain)
        pointed.success(None, js=FOCUS_NAME)
        pointed.success(lambda: gr.update(interactive=True), None, split, **plain)
        for done in (
            pointed,
            split.click(handlers.split, settings, edited, **on_model),
            name.submit(handlers.renamed, [name, *settings], [*edited, name], **on_model),
            join.input(handlers.renamed, [join, *settings], [*edited, name], **on_model),
        ):
            done.success(handlers.partners, [shown, groups, names], join, **plain)
        # On a busy machine the browser misses an answer now and then. By default it would ignore every further click.
        packed = download.click(
            handlers.packed, [shown, groups, names, opacity], parcel, trigger_mode="multiple", **plain
        )
        packed.success(None, parcel, js=SAVE).then(lambda: None, None, parcel, **plain)

        def forget(request: gr.Request) -> None:
            """Drop what is kept of a visitor who has closed the page; Gradio alone would keep it."""
            page.state_holder.session_data.pop(str(request.session_hash), None)

        page.unload(forget)
    page.state_session_capacity = MOST_VISITORS
    return page.queue(max_size=MOST_WAITING)


def application(handlers: Handlers, checkpoint: str) -> FastAPI:
    """The page as an ASGI application; GRADIO_TEMP_DIR must name the handlers' folder."""
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    # Fonts by name are the visitor's own; Gradio's default would be fetched from Google.
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=font, font_mono=["ui-monospace", "monospace"])
    # Gradio's secondary text, accents and check boxes are too pale to read.
    theme = theme.set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
    )  # fmt: skip
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build_page(handlers, checkpoint),
        "/",
        app_kwargs={"middleware": [Middleware(Privacy)]},
        footer_links=[], run_history=False, show_error=False, max_file_size=MOST_BYTES, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, theme=theme, css_paths=HERE / "style.css",
        js=(HERE / "page.js").read_text(encoding="utf-8"),
    )  # fmt: skip


def _patches(elem_id: str) -> gr.Gallery:
    return gr.Gallery(
        columns=3, object_fit="contain", interactive=False, show_label=False, buttons=[], elem_id=elem_id, height="auto"
    )
