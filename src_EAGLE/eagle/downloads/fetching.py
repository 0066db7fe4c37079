"""Fetch files over HTTP or from Google Drive, and models from their publisher or timm's hub.

timm and gdown are imported only where they are used: importing them takes time, and most calls need neither.
"""

import glob
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from eagle.downloads.catalog import DINO_URL, MODELS, licence_hint, local_weights
from eagle.errors import DownloadError
from eagle.files import locked, looks_like_html, written_atomically

if TYPE_CHECKING:
    from torch import Tensor

# Seconds without a byte after which a transfer has failed; number of times that one command resumes it.
TIMEOUT = 30.0
RETRIES = 3
# Seconds for the Hugging Face hub to answer at all; its client would retry for minutes.
HUB_TIMEOUT = 5.0


def fetch_file(url: str, destination: str | Path) -> Path:
    """Fetch ``url``, of Google Drive or any other server, into ``destination`` unless that file exists; return it.

    gdown writes to ``DESTINATION.fetched????????.part``, from which a later call resumes.

    Raises:
        DownloadError: the server cannot be reached or refuses, the result is an HTML page, or the file cannot be
            written.
        EagleError: another process fetches it.
    """
    import gdown
    from requests import RequestException

    destination = Path(destination)
    fetched = destination.with_name(f"{destination.name}.fetched")
    by_hand = f"run the command again, or save the file with a browser as {destination}"

    def check_space(received: int, total: int | None) -> None:
        missing, free = (total or 0) - received, shutil.disk_usage(fetched.parent).free
        if missing > free:
            raise DownloadError(f"{fetched.parent}: {missing} bytes are needed and {free} are free; make room")

    messages = {"start": "", "output": f"To: {destination}\n"}
    try:
        with locked(destination.with_name(f".{destination.name}.eagle-lock"), destination):
            if destination.is_file():
                return destination
            gdown.download(
                url,
                str(fetched),
                resume=True,
                retries=RETRIES,
                timeout=TIMEOUT,
                progress=check_space,
                log_messages=messages,
            )
            with fetched.open("rb") as content:
                is_page = looks_like_html(content.read(1024))
            if is_page:
                fetched.unlink()
                raise DownloadError(f"{url}: the download is an HTML page, not the file, and was deleted; {by_hand}")
            return fetched.replace(destination)
    except (RequestException, gdown.DownloadError) as error:
        part = next(fetched.parent.glob(f"{glob.escape(fetched.name)}????????.part"), None)
        restart = f", delete {part} to start from the beginning" if part else ""
        reason = " ".join(str(error).split())
        if failed := re.search(r"\[Errno -?\d+\] ([\w ,]+)", reason):  # within several exceptions' texts
            reason = f"no connection ({failed[1]})"
        raise DownloadError(f"{url}: {reason}; {by_hand}{restart}") from error
    except OSError as error:
        raise DownloadError(f"{destination}: cannot be written ({error.strerror or error})") from error


def fetch_model(name: str, output_dir: str | Path, base_url: str = DINO_URL) -> Path:
    """Fetch one model of ``eagle.downloads.catalog.MODELS`` unless its file exists; return that file.

    ``base_url`` is the base address of the DINO, DINOv2 and MAE weights.

    Raises:
        DownloadError: every source failed; the message has all reasons.
    """
    model = MODELS[name]
    if present := local_weights(output_dir, name):
        return present
    stem, reasons = Path(output_dir) / (model.stem or name), []
    if url := model.address(base_url):
        try:
            return fetch_file(url, f"{stem}{'.ckpt' if model.drive_id else '.pth'}")
        except DownloadError as error:
            reasons.append(str(error))
    if model.timm_name:
        source = f"timm {model.timm_name}"
        try:
            return save_weights(timm_state(model.timm_name), Path(f"{stem}.safetensors"), source, source)
        except Exception as error:  # the hub's error types change with its version
            reasons.append(f"{source}: {' '.join(str(error).split())}")
    raise DownloadError("; ".join(reason.rstrip(".") for reason in reasons) + licence_hint(model.timm_name or ""))


def timm_state(timm_name: str) -> dict[str, "Tensor"]:
    """The pretrained state dict of a timm model, from the Hugging Face hub or, where it does not answer, its cache.

    Raises:
        Exception: whatever the hub's client raises.
    """
    import timm
    from huggingface_hub import constants

    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT).close()  # noqa: S310
    except HTTPError:
        pass  # an answer
    except OSError:
        constants.HF_HUB_OFFLINE = True
    return timm.create_model(timm_name, pretrained=True, num_classes=0).state_dict()


def save_weights(state: Mapping[str, "Tensor"], destination: Path, source: str, arch: str) -> Path:
    """Write a state dict as .safetensors, with its origin and the model that it fits as metadata."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    with written_atomically(destination) as temporary:
        temporary.write_bytes(save(tensors, metadata={"arch": arch, "source": source}))
    return destination
