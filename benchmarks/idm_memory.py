"""Memory of training the invertible diffusion U-Net, beside MONAI's DiffusionModelUNet with as many parameters.

Jain and Teli, 2025, arXiv 2504.10883, report up to 15 % less peak memory on BraTS, without saying than what. Here a
step is simulated on fake tensors, where only living tensors count, for a patch of 128^3 voxels and for a whole BraTS
volume.

    python benchmarks/idm_memory.py [--quick]
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from typing import Any

import torch
from common import MODES, results, table, write
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from monai_invertible.memory import MemoryReport, estimate_training_step, largest_patch
from monai_invertible.networks import CheckpointedDiffusionUNet, InvertibleDiffusionUNet

GIB = 2**30
SIZES = {"128³": (128, 128, 128), "240 x 240 x 155": (240, 240, 155)}
BUDGETS = (8, 16, 24, 48, 80)  # GiB
MIXED = {"float32": None, "bfloat16": torch.bfloat16}
# 40.0 and 39.0 million parameters
MONAI: dict[str, Any] = {"channels": (64, 128, 256), "num_res_blocks": 2, "attention_levels": (False,) * 3}
IDM: dict[str, Any] = {"channels": (64, 128, 512, 896), "strides": (2, 2, 2)}
FLASH = {**MONAI, "use_flash_attention": True}
NETWORKS: dict[str, Any] = {
    **{
        f"IDM, {label}": partial(InvertibleDiffusionUNet, 3, 1, 1, **IDM, backprop=mode)
        for mode, (label, _) in MODES.items()
    },
    **{
        f"IDM at full resolution, {label}": partial(
            InvertibleDiffusionUNet, 3, 1, 1, **IDM, bookend_stride=1, backprop=mode
        )
        for mode, (label, _) in MODES.items()
    },
    "DiffusionModelUNet": partial(DiffusionModelUNet, 3, 1, 1, **MONAI),
    "- checkpointed": partial(CheckpointedDiffusionUNet, 3, 1, 1, **MONAI),
    "- flash attention": partial(DiffusionModelUNet, 3, 1, 1, **FLASH),
    "- both": partial(CheckpointedDiffusionUNet, 3, 1, 1, **FLASH),
}
SMALL_NETWORKS: dict[str, Any] = {
    label: partial(InvertibleDiffusionUNet, 3, 1, 1, backprop=mode) for mode, (label, _) in MODES.items()
}


@cache
def simulate(
    network: partial[nn.Module], size: tuple[int, int, int], autocast: torch.dtype | None = None
) -> MemoryReport:
    """Of one volume; MONAI's network takes multiples of four only, so its volume is padded."""
    if network.func is not InvertibleDiffusionUNet:
        size = tuple(-(-n // 4) * 4 for n in size)  # type: ignore[assignment]
    return estimate_training_step(network, [(1, 1, *size), torch.tensor([500])], autocast=autocast)


def peaks(networks: dict[str, Any], sizes: dict[str, tuple[int, int, int]]) -> str:
    rows = []
    for name, network in networks.items():
        found = [simulate(network, size, dtype) for size in sizes.values() for dtype in MIXED.values()]
        parameters = f"{found[0].parameters / 4e6:.1f}"
        rows.append([name, parameters, f"{found[0].activations / GIB:.2f}", *(f"{r.peak / GIB:.2f}" for r in found)])
    columns = [f"{size}, {dtype}" for size in sizes for dtype in MIXED]
    return table(["", "parameters, million", f"kept by forward, {columns[0]}", *columns], rows)


def largest(budgets: tuple[int, ...]) -> str:
    rows = []
    for name, network in NETWORKS.items():
        edges = []
        for budget in budgets:
            try:
                edges.append(str(largest_patch(lambda n, net=network: simulate(net, (n, n, n)), budget * GIB)))
            except ValueError:
                edges.append("-")
        rows.append([name, *edges])
    return table(["", *(f"{budget} GiB" for budget in budgets)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small volume and one budget, to see whether it runs")
    options = parser.parse_args()
    sizes, budgets = ({"32³": (32, 32, 32)}, BUDGETS[:1]) if options.quick else (SIZES, BUDGETS)
    counts = [
        simulate(NETWORKS[n], next(iter(sizes.values()))).parameters for n in ("IDM, stored", "DiffusionModelUNet")
    ]
    if max(counts) > 1.1 * min(counts):
        raise ValueError(f"idm_memory: parameters must agree within 10 %, got {counts}. Change the widths.")
    write(
        results(options.quick) / "idm_memory.md",
        "The invertible diffusion U-Net beside MONAI's, parameters matched",
        "Peak of a training step of one volume in GiB, simulated on fake tensors: activations, parameters, gradients "
        "and Adam's state. Tensors only: a card also needs room for its context, workspaces and allocator. bfloat16 is "
        "autocast with float32 parameters. The state of the invertible chain stays float32 under autocast, so that its "
        "inverse loses no digits; so autocast gains it little. DiffusionModelUNet's deepest level attends to all pairs "
        "of voxels, a matrix of N x N, with any `attention_levels`; `use_flash_attention=True` never builds it. It "
        "works at full resolution; the IDM's first end, as in its paper, halves the resolution at once. \"At full "
        'resolution" it does not (`bookend_stride=1`), with the same parameters.',
        peaks(NETWORKS, sizes),
        "The network of the default arguments:",
        peaks(SMALL_NETWORKS, sizes),
        "## The largest volume\n\nEdge of the largest cube, a multiple of 16, whose float32 step stays within a "
        "budget; networks of the first table.",
        largest(budgets),
    )


if __name__ == "__main__":
    main()
