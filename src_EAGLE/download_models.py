"""Fetch pretrained backbones and the released EAGLE checkpoints: ``python download_models.py --list`` shows them."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import key
from eagle.config.validation import refuse_unknown
from eagle.console import text_table
from eagle.downloads.catalog import DINO_URL, MODELS, local_weights
from eagle.downloads.fetching import DERIVED, fetch_model
from eagle.errors import DownloadError, EagleError
from eagle.files import default_folder


@dataclass
class DownloadModelsConfig:
    """Every key of ``download_models.py``."""

    models: list[str] = key(
        ["dino_vits8", "dino_vitb8", "eagle_cocostuff_vits8", "eagle_cityscapes_vitb8"],
        "Models to fetch; --list shows all names",
    )
    output_dir: str = key(default_folder("models"), "Folder to write to", path=True)
    base_url: str = key(DINO_URL, "Base address of the DINO and DINOv2 weights; set it to use a mirror")
    list: bool = key(False, "List the models that can be fetched and those already fetched, then stop")


def download_models(config: DictConfig) -> None:
    """Fetch pretrained backbones and the released EAGLE checkpoints; existing files are kept."""
    if config.list:
        print(overview(config.output_dir))
        return
    refuse_unknown("model", config.models, MODELS)
    fetched: list[str] = []
    failed: list[str] = []
    for name in config.models:
        try:
            path = fetch_model(name, config.output_dir, config.base_url)
        except EagleError as error:
            failed.append(f"{name} ({error})")
        else:
            stand_in = name != DERIVED and path.stem == DERIVED
            label = f"{MODELS[DERIVED].what} in place of {name}" if stand_in else name
            fetched.append(f"{label} -> {path}")
    print(f"available: {'; '.join(fetched) or 'nothing'}")
    if failed:
        raise DownloadError(f"not fetched: {'; '.join(failed)}")


def overview(output_dir: str) -> str:
    """A table of all models that can be fetched."""
    heading = ("name", "model", "size", "file", "source")
    rows = []
    for name, model in MODELS.items():
        present = local_weights(output_dir, name)
        rows.append((name, model.what, model.size, str(present or "not fetched"), model.source))
    return f"{text_table(heading, rows, numbers=False)}\n\nfolder: {Path(output_dir).resolve()}"


def main() -> None:
    """Run the command."""
    run_command(DownloadModelsConfig, download_models)


if __name__ == "__main__":
    main()
