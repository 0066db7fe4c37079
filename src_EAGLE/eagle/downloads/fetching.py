"""Fetch files over HTTP or from Google Drive, and models from their publisher or timm's hub.

timm and gdown are imported only where they are used: importing them takes time, and most calls need neither.
"""

import glob
import logging
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from eagle.downloads.catalog import DINO_URL, MODELS, licence_hint, local_weights
from eagle.errors import DownloadError
from eagle.files import locked, looks_like_html, written_atomically

if TYPE_CHECKING:
    from torch import Tensor

# Seconds without a byte after which a transfer has failed.
TIMEOUT = 30.0
# Seconds for the Hugging Face hub to answer at all; its client would retry for minutes.
HUB_TIMEOUT = 5.0

logger = logging.getLogger(__name__)


def fetch_file(url: str, destination: str | Path) -> Path:
    """Fetch ``url``, of Google Drive or any other server, into ``destination`` unless that file exists; return it.

    gdown writes to ``DESTINATION.fetched????????.part``, from which a later call resumes. A transfer that is cut off
    goes on as long as each attempt brings new bytes.

    Raises:
        DownloadError: the server cannot be reached or refuses, the result is an HTML page, or the file cannot be
            written.
        EagleError: another process fetches it.
    """
    destination = Path(destination)
    fetched = destination.with_name(f"{destination.name}.fetched")
    if destination.is_file():
        return destination
    try:
        with locked(destination.with_name(f".{destination.name}.eagle-lock"), destination):
            if destination.is_file():
                return destination
            _transfer(url, fetched, destination)
            with fetched.open("rb") as content:
                is_page = looks_like_html(content.read(1024))
            if is_page:
                fetched.unlink()
                by_hand = _by_hand(destination)
                raise DownloadError(f"{url}: the download is an HTML page, not the file, and was deleted; {by_hand}")
            fetched.replace(destination)
            for part in _partial_files(fetched):
                part.unlink()
            return destination
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
    stem = Path(output_dir) / (model.stem or name)
    sources = [
        (model.drive_id, partial(fetch_file, model.source, f"{stem}.ckpt")),
        (model.public_path, partial(fetch_file, f"{base_url.rstrip('/')}/{model.public_path}", f"{stem}.pth")),
        (model.timm_name, partial(fetch_from_timm, str(model.timm_name), Path(f"{stem}.safetensors"))),
    ]
    reasons = []
    for known, fetch in sources:
        try:
            if known:
                return fetch()
        except DownloadError as error:
            logger.info("%s", error)
            reasons.append(str(error))
    raise DownloadError("; ".join(reasons) + licence_hint(model.timm_name or ""))


def fetch_from_timm(timm_name: str, destination: Path) -> Path:
    """Save a timm model's pretrained state dict as .safetensors; raise DownloadError if it cannot be fetched."""
    try:
        state = timm_state(timm_name)
    except Exception as error:  # the hub's error types change with its version
        raise DownloadError(f"timm {timm_name}: {_reason(error)}") from error
    return save_weights(state, destination, f"timm {timm_name}", f"timm {timm_name}")


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


def _transfer(url: str, fetched: Path, destination: Path) -> None:
    """Write ``fetched``, complete; raise DownloadError if an attempt brings no new bytes."""
    import gdown
    from requests import RequestException

    def check_space(received: int, total: int | None) -> None:
        missing, free = (total or 0) - received, shutil.disk_usage(fetched.parent).free
        if missing > free:
            raise DownloadError(f"{fetched.parent}: {missing} bytes are needed and {free} are free; make room")

    messages = {"start": "", "output": f"To: {destination}\n"}
    resume = True
    while True:
        before = _partial_files(fetched)
        try:
            gdown.download(
                url, str(fetched), resume=resume, timeout=TIMEOUT, progress=check_space, log_messages=messages
            )
            return
        except (RequestException, gdown.DownloadError) as error:
            after = _partial_files(fetched)
            if resume and sum(after.values()) > sum(before.values()):
                continue
            if resume and before and isinstance(error, gdown.DownloadError):
                # The server cannot go on with the partial file. It is kept until another one is complete: what the
                # server sends now may be the log-in page of a network.
                resume = False
                continue
            for part in after.keys() - before.keys():
                part.unlink()
            raise DownloadError(f"{url}: {_reason(error)}; {_by_hand(destination)}") from error


def _partial_files(fetched: Path) -> dict[Path, int]:
    """Sizes of the partial files that gdown left."""
    return {part: part.stat().st_size for part in fetched.parent.glob(f"{glob.escape(fetched.name)}????????.part")}


def _by_hand(destination: Path) -> str:
    return f"run the command again, or save the file with a browser as {destination}"


def _reason(error: Exception) -> str:
    """An error on one line; of a failed connection, what the system says."""
    text = " ".join(str(error).split()) or type(error).__name__
    system = re.search(r"\[Errno -?\d+\] ([\w ,]+)", text)
    return f"the connection failed ({system[1]})" if system else text
