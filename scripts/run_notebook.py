"""Execute a notebook in place, and keep only outputs that a reader wants: ``python run_notebook.py NOTEBOOK.ipynb``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import option
from eagle.errors import DataError, EagleError
from eagle.files import default_folder, write_text_atomically

# Metadata that does not differ between machines.
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}


@dataclass
class NotebookConfig:
    """Every key of ``run_notebook.py``."""

    notebook: str = option(default_folder("notebooks/eagle_tour.ipynb"), "Notebook to execute", path=True)
    timeout: int = option(600, "Seconds that a cell may take", minimum=1)


def run_notebook(config: DictConfig) -> None:
    """Execute a notebook from top to bottom in a new kernel and write it back with its outputs."""
    path = Path(config.notebook)
    if not path.is_file():
        raise DataError(f"notebook: {path} does not exist")
    text = executed(path, config.timeout)
    write_text_atomically(path, text)
    print(f"{path}: {len(text.encode()) / 1000:.0f} kB")


def executed(path: Path, timeout: int) -> str:
    """Execute a notebook in its folder and return its JSON, cleaned by ``cleaned``.

    Raises:
        EagleError: a cell failed, or took longer than ``timeout`` seconds.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from nbformat.reader import NotJSONError

    try:
        notebook = nbformat.read(path, as_version=4)
    except NotJSONError as error:
        raise DataError(f"{path}: not a notebook") from error
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=KERNEL["name"],
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no warning about its local ports
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise EagleError(f"{path}: a cell failed: {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise EagleError(f"{path}: a cell took more than timeout={timeout} seconds") from error
    return cleaned(notebook)


def cleaned(notebook: Any) -> str:
    """The notebook's JSON without what differs between machines: warnings, bars, metadata, addresses, folders."""
    import nbformat

    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_cleaned_output, cell.outputs) if output is not None]
    return nbformat.writes(notebook) + "\n"


def _cleaned_output(output: Any) -> Any:
    """An output as it is kept; None for one that is not."""
    if output.output_type == "stream":
        # Bars return to the start of their line, or move up by an escape sequence.
        kept = [line for line in output.text.split("\n") if not re.search(r"[\r\x1b]", line)]
        output.text = "\n".join(kept).strip("\n").replace(f"{default_folder('')}/", "") + "\n"
        return output if output.name == "stdout" and output.text.strip() else None
    if any(kind.startswith("image/") for kind in output.get("data", {})):
        output.data.pop("text/plain", None)  # names the object's address
    return output


if __name__ == "__main__":
    run_command(NotebookConfig, run_notebook)
