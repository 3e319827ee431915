"""Gradients from which no tensor can be fitted, and the order of names."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from monai_invertible.data.diffusion_signal import read_diffusion_gradients
from monai_invertible.data.split_by_subject import natural_order


def gradients(folder: Path, directions: np.ndarray, b: float = 1000.0) -> tuple[Path, Path]:
    bvals, bvecs = folder / "bvals", folder / "bvecs"
    np.savetxt(bvals, [[0.0] + [b] * len(directions)])
    np.savetxt(bvecs, np.vstack([np.zeros(3), directions]).T)
    return bvals, bvecs


def sphere(count: int) -> np.ndarray:
    directions = np.random.default_rng(0).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def test_directions_that_span_a_tensor(tmp_path: Path) -> None:
    b, g = read_diffusion_gradients(*gradients(tmp_path, sphere(8)), 9)
    assert b.tolist() == [0.0] + [1000.0] * 8
    assert np.allclose(g[1:], sphere(8)) and not g[0].any()


def test_directions_that_do_not(tmp_path: Path) -> None:
    line = np.tile([[1.0, 0.0, 0.0]], (8, 1))
    angles = np.linspace(0, 3, 8)
    plane = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    for directions, count in ((line, 1), (plane, 3)):
        with pytest.raises(ValueError, match=f"bvecs: the directions .* six components, got {count} of them"):
            read_diffusion_gradients(*gradients(tmp_path, directions), 9)


@pytest.mark.parametrize("b", [-1000.0, float("inf"), float("nan")])
def test_impossible_b_values(tmp_path: Path, b: float) -> None:
    with pytest.raises(ValueError, match=f"bvals: b-values must be finite and not negative, got {b:g}"):
        read_diffusion_gradients(*gradients(tmp_path, sphere(8), b), 9)


def test_order_of_names_does_not_depend_on_the_folder() -> None:
    names = ["2", "02", "1", "01", "10", "b", "10²"]
    orders = {tuple(sorted(order, key=natural_order)) for order in itertools.permutations(names)}
    assert orders == {("01", "1", "02", "2", "10", "10²", "b")}
