"""The tutorials: each notebook has the cells of its script, and each script runs at a small size, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"
SCRIPTS = sorted(FOLDER.glob("*.py"))
FIGURES = {
    "accelerated_mri_reconstruction": {"undersampling.png", "loss.png", "reconstruction.png"},
    "brain_diffusion": {"noise.png", "loss.png", "estimates.png", "sampling.png", "samples.png", "inverse.png"},
    "swap_one_line": {"overlay.png", "memory_against_patch.png"},
    "tensor_superresolution": {
        "tensor.png",
        "memory_against_depth.png",
        "loss.png",
        "maps.png",
        "errors.png",
        "inverse.png",
    },
    "when_to_trust_inversion": {"one_layer.png", "layerwise.png", "hybrid.png", "loss.png", "depth_and_slope.png"},
    "why_invert": {"loss.png", "denoised.png", "memory_against_depth.png"},
}


def cells(path: Path) -> list[tuple[str, str]]:
    jupytext = pytest.importorskip("jupytext")
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def test_every_notebook_has_a_script() -> None:
    assert SCRIPTS
    assert sorted(FOLDER.glob("*.ipynb")) == [script.with_suffix(".ipynb") for script in SCRIPTS]
    assert FIGURES.keys() == {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_is_in_step_with_its_script(script: Path) -> None:
    notebook = script.with_suffix(".ipynb")
    assert cells(notebook) == cells(script), f"{notebook.name} is older than {script.name}: run make notebooks"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_was_run_without_errors(script: Path) -> None:
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == len(FIGURES[script.stem])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs_at_a_small_size(script: Path, tmp_path: Path) -> None:
    sizes = {"MONAI_INVERTIBLE_TUTORIAL": "small", "MONAI_DATA_DIRECTORY": str(tmp_path / "data"), "MPLBACKEND": "agg"}
    python_path = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, **sizes, "PYTHONPATH": python_path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stdout
    figures = tmp_path / "data" / script.stem
    assert {path.name for path in figures.glob("*.png")} == FIGURES[script.stem]
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "a tutorial writes into its folder only"
