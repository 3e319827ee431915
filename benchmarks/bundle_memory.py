"""Memory of one training step of every network of every bundle, as its configurations have it (simulated).

The tables in the bundles' READMEs are these.

    python benchmarks/bundle_memory.py [--quick]
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from common import bundle_config, results, table, translation_step, write

from monai_invertible.memory import estimate_training_step

CHECKPOINT = {"network_def#backprop": "checkpoint"}
STORE = {"network_def#backprop": "store"}
LARGE = {"roi_size": [96, 96, 96]}
SEGMENTATION: list[tuple[str, list[str], dict[str, Any]]] = [
    ("Fully-InvRes (`train.json`)", [], {}),
    ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
    ("- with `--network_def#backprop store`", [], STORE),
    ("- with `vae.json`", ["vae"], {}),
    ("Partially-InvRes (`partially.json`)", ["partially"], {}),
    ("- with `--network_def#backprop store`", ["partially"], STORE),
    ("- with `vae.json`", ["partially", "vae"], {}),
    ("3D U-Net (`baseline.json`)", ["baseline"], {}),
]
TRANSLATION: list[tuple[str, list[str], dict[str, Any]]] = [
    ("RevGAN (`train.json`)", [], {}),
    ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
    ("- with `--network_def#backprop store`", [], STORE),
    ("- with `paired.json`", ["paired"], {}),
    ("two ResNets (`baseline.json`)", ["baseline"], {}),
    ("- with `paired.json`", ["baseline", "paired"], {}),
]
SUPERRESOLUTION: list[tuple[str, list[str], dict[str, Any]]] = [
    ("3D RevGAN (`train.json`)", [], {}),
    ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
    ("- with `--network_def#backprop store`", [], STORE),
    ("- with `unpaired.json`", ["unpaired"], {}),
    ("- with `no_adversary.json`", ["no_adversary"], {}),
    ("SRCNN (`srcnn.json`, `no_adversary.json`)", ["srcnn", "no_adversary"], {}),
    ('3D RevGAN with `--roi_size "[96, 96, 96]"`', [], LARGE),
    ("- with `--network_def#backprop checkpoint`", [], {**LARGE, **CHECKPOINT}),
    ("- with `--network_def#backprop store`", [], {**LARGE, **STORE}),
]
WHOLE = ["whole_volume"]
DIFFUSION: list[tuple[str, list[str], dict[str, Any]]] = [
    ("IDM (`train.json`)", [], {}),
    ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
    ("- with `--network_def#backprop store`", [], STORE),
    ("MONAI's U-Net (`baseline.json`)", ["baseline"], {}),
    ("- with its blocks checkpointed (`checkpointed.json`)", ["checkpointed"], {}),
    ("IDM, `whole_volume.json`", WHOLE, {}),
    ("- with `--network_def#backprop checkpoint`", WHOLE, CHECKPOINT),
    ("- with `--network_def#backprop store`", WHOLE, STORE),
    ("MONAI's U-Net, `baseline.json`, `whole_volume.json`", [*WHOLE, "baseline"], {}),
    ("- with its blocks checkpointed (`checkpointed.json`)", [*WHOLE, "checkpointed"], {}),
]
CLASSIFICATION: list[tuple[str, list[str], dict[str, Any]]] = [
    ("hybrid (`train.json`)", [], {}),
    ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
    ("- with `--network_def#backprop store`", [], STORE),
    ("layer-wise (`layerwise.json`)", ["layerwise"], {}),
    ("- with `--network_def#backprop checkpoint`", ["layerwise"], CHECKPOINT),
    ("- with `--network_def#backprop store`", ["layerwise"], STORE),
    ("i-RevNet (`irevnet.json`)", ["irevnet"], {}),
    ("RevNet (`revnet.json`)", ["revnet"], {}),
    ("ResNet (`resnet.json`)", ["resnet"], {}),
]
ROWS: dict[str, list[tuple[str, list[str], dict[str, Any]]]] = {  # of each bundle: name, override files, overrides
    "fastmri_irim_reconstruction": [
        ("i-RIM 2D (`train.json`)", [], {}),
        ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
        ("- with `--network_def#backprop store`", [], STORE),
        ("i-RIM 2D, `small.json`", ["small"], {}),
        ("RIM (`rim.json`)", ["rim"], {}),
        ("U-Net (`unet.json`)", ["unet"], {}),
        ("i-RIM 3D (`volume.json`)", ["volume"], {}),
        ("i-RIM 3D, `small.json`", ["volume", "small"], {}),
    ],
    "brats_invres_segmentation": SEGMENTATION,
    "iseg_invres_segmentation": SEGMENTATION,
    "maps_revgan_translation": TRANSLATION,
    "cityscapes_revgan_translation": TRANSLATION,
    "hcp_revgan_superresolution": SUPERRESOLUTION,
    "brats_idm_generation": DIFFUSION,
    "cifar10_hybrid_classification": CLASSIFICATION,
}


def row(bundle: str, name: str, files: list[str], overrides: dict[str, Any]) -> list[str]:
    parser = bundle_config(bundle, ["train", *files], overrides)
    batch, size = parser["batch_size"], parser["roi_size"]
    channels = parser.get("network_def#in_channels") and parser.get_parsed_content("network_def#in_channels")
    shape = (batch, channels, *size) if channels else (batch, 1, *size, 2)  # an image, or the k-space of a coil
    inputs = [shape, (batch,)] if "num_train_timesteps" in parser.config else shape  # a diffusion model wants the time
    optimizer = "sgd_momentum" if "momentum" in parser.config else "adam"
    report = estimate_training_step(partial(parser.get_parsed_content, "network_def"), inputs, optimizer=optimizer)
    return cells(name, batch, size, report.activations, report.peak)


def pair_row(bundle: str, name: str, files: list[str], overrides: dict[str, Any]) -> list[str]:
    """Of two generators and, if there are any, their discriminators."""
    parser = bundle_config(bundle, ["train", *files], overrides)
    if parser["discriminators"] is not None:
        parser["discriminators"] = "$torch.nn.ModuleDict(@discriminators_def)"  # without .to(device)
    batch, size = parser["batch_size"], parser["roi_size"]
    shape = (batch, parser.get("network_def#in_channels", 3), *size)  # two ResNets: of pictures
    keys = ("network_def", "discriminators", "loss")
    step = translation_step(lambda: tuple(parser.get_parsed_content(key) for key in keys), shape, shape)
    return cells(name, batch, size, step.model, step.kept, step.peak, digits=3)


def cells(name: str, batch: int, size: list[int], *numbers: int, digits: int = 2) -> list[str]:
    return [name, " x ".join(map(str, size)) + f", {batch}", *(f"{n / 1e9:.{digits}f} GB" for n in numbers)]


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    parts = []
    for bundle, rows in ROWS.items():
        pair = "revgan" in bundle
        head = ["network", "patch, batch", *(["model"] if pair else []), "kept by forward", "peak of the step"]
        line = pair_row if pair else row
        parts += [f"## {bundle}", table(head, [line(bundle, *entry) for entry in (rows[:1] if quick else rows)])]
    write(
        results(quick) / "bundle_memory.md",
        "Memory of a training step of the bundles (simulated)",
        "Living tensors in GB (10^9 bytes), float32, with parameters, gradients and the optimizer's state, counted on "
        "fake tensors: not a measurement of a GPU. A step of RevGAN is that of both generators, then of the "
        'discriminators; the parameters, gradients and Adam\'s state of all of them are its "model".',
        *parts,
    )


if __name__ == "__main__":
    main()
