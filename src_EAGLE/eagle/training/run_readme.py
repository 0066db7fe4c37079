"""README.md of a run folder: what each file is, and the commands that come next."""

from pathlib import Path

from eagle.console import shell_command
from eagle.files import write_text_atomically

FILE_NAME = "README.md"

_TEXT = """\
# Training run {name}

| File | Content |
| --- | --- |
| `best.ckpt` | the segmenter of the best validation: highest cluster mIoU, or lowest `val/loss` without labels |
| `last.ckpt`, `previous.ckpt` | the latest state of the run and the one before it, with optimiser and random states |
| `config.yml` | every key of the run; `--config-name` takes it |
| `run.json` | command, commit, package versions and seed, one entry per start |
| `metrics.csv` | every logged loss and score |
| `pictures/` | after each validation: images beside both probes' maps, the confusion, and the classes' frequencies |
| `best_eval.json`, `best_report.html` | after evaluating `best.ckpt`: scores and names of the clusters; pictures |
| `curves.png` | after `plot_run.py` |

## What to do next

```bash
# score the segmenter, which also names its clusters if the images have labels
{evaluate}
# masks of your own images: put files or folders in place of IMAGES
{segment}
# eigenvectors, EiCue and clusters of validation images
{visualize}
# curves of losses and scores
{plot}
# continue the run, e.g. after an interruption or with a larger max_steps
{resume}
```
"""


def write_run_readme(run_dir: Path, resume: str) -> None:
    """Write ``README.md``.

    Args:
        run_dir: the run's folder.
        resume: the shell command that resumes the run.
    """
    scripts, folder = Path(__file__).parents[2], run_dir.resolve()
    best = str(folder / "best.ckpt")
    text = _TEXT.format(
        name=folder.name,
        evaluate=shell_command(scripts / "eval_segmentation.py", f"model_paths=[{best}]"),
        segment=shell_command(scripts / "segment_images.py", "IMAGES", f"checkpoint={best}"),
        visualize=shell_command(scripts / "visualize_eigen.py", f"checkpoint={best}"),
        plot=shell_command(scripts / "plot_run.py", str(folder)),
        resume=resume,
    )
    write_text_atomically(run_dir / FILE_NAME, text)
