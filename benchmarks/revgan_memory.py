"""Memory of an unpaired training step of RevGAN and CycleGAN at 256 x 256, against the depth of the generators.

Table 5 of van der Ouderaa and Worrall, Reversible GANs for Memory-efficient Image-to-Image Translation, CVPR 2019, was
measured on a GPU (Tesla K40m, Maps). Here the same step is simulated on fake tensors, where only living tensors count:
no workspace, no allocator. So the two are different quantities; what they have in common is the growth with depth. The
bundles, as they are configured, are in ``bundle_memory.py``.

    python benchmarks/revgan_memory.py [--quick]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from common import TranslationStep, figure, results, table, translation_step, write
from monai.networks.nets import PatchDiscriminator
from torch import nn

from monai_invertible.losses import UnpairedTranslationLoss
from monai_invertible.networks import IndependentGenerators, ResNetGenerator, TranslationGenerators

MIB = 2**20  # as the paper counts
DEPTHS = (6, 9, 12, 18, 30)
PAPER = {  # "Model" and "Activations" of table 5, MiB
    "CycleGAN": ((434.3, 482.3, 530.3, 626.3, 818.7), (752.0, 949.0, 1148.1, 1543.9, 2335.8)),
    "RevGAN, inverted": ((374.4, 385.4, 398.5, 423.4, 626.3), (646.1,) * 5),
}
COLOURS = {"CycleGAN": "#c98500", "RevGAN, stored": "#777777", "RevGAN, inverted": "#00796b"}


def generators(name: str, depth: int) -> nn.Module:
    """Of about as many parameters each, as in the paper."""
    if name == "CycleGAN":
        return IndependentGenerators(*(ResNetGenerator(channels=32, depth=depth) for _ in range(2)))
    return TranslationGenerators(channels=58, depth=depth, backprop="invert" if name.endswith("inverted") else "store")


def discriminators() -> nn.ModuleDict:
    return nn.ModuleDict(
        {name: PatchDiscriminator(2, 64, 3, num_layers_d=3, norm="INSTANCE", bias=True) for name in ("x", "y")}
    )


def simulate(depths: tuple[int, ...]) -> dict[str, list[TranslationStep]]:
    def build(name: str, depth: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        return generators(name, depth), discriminators(), UnpairedTranslationLoss()

    return {
        name: [translation_step(partial(build, name, d), *[(1, 3, 256, 256)] * 2) for d in depths] for name in COLOURS
    }


def picture(path: Path, depths: tuple[int, ...], steps: dict[str, list[TranslationStep]]) -> None:
    fig, (left, right) = figure(2)
    for name, colour in COLOURS.items():
        for axes, values in (
            (left, [s.rest / MIB for s in steps[name]]),
            (right, PAPER.get(name, ((), ()))[1][: len(depths)]),
        ):
            if values:
                axes.plot(depths, values, marker="o", markersize=4, color=colour)
                axes.annotate(f"{name}, {values[-1]:.0f}", (depths[-1], values[-1]), (-4, 6), ha="right", color=colour,
                              textcoords="offset points")  # fmt: skip
    left.set_title("Simulated: all but the model", loc="left", fontsize=10)
    right.set_title("Paper's GPU: activations", loc="left", fontsize=10)
    for axes in (left, right):
        axes.set(xlabel="depth of the generators", ylabel="MiB", ylim=(0, None), xticks=depths)
        axes.grid(axis="y", color="#e6e6e6")
    fig.savefig(path)


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    folder, depths = results(quick), DEPTHS[:2] if quick else DEPTHS
    steps = simulate(depths)
    rows = []
    for name, of_depth in steps.items():
        papers = (
            [f"{model:.1f} + {rest:.1f}" for model, rest in zip(*PAPER[name], strict=True)] if name in PAPER else []
        )
        for i, (depth, found) in enumerate(zip(depths, of_depth, strict=True)):
            numbers = [f"{n / MIB:.1f}" for n in (found.model, found.rest, found.peak)]
            rows.append([name, depth, f"{found.parameters / 1e6:.1f}", *numbers, papers[i] if papers else "-"])
    growth = []
    for name, of_depth in steps.items():
        ours = (of_depth[-1].rest - of_depth[0].rest) / (depths[-1] - depths[0]) / MIB
        published = PAPER[name][1] if name in PAPER else None
        theirs = f"{(published[-1] - published[0]) / (DEPTHS[-1] - DEPTHS[0]):.1f}" if published else "-"
        growth.append([name, f"{ours:.1f}", theirs])
    write(
        folder / "revgan_memory.md",
        "Memory of training RevGAN (simulated)",
        "MiB of living tensors in an unpaired step (generators, then discriminators) at 256 x 256, batch 1, float32, "
        'on fake tensors: not a measurement of a GPU. "Model" is parameters, gradients and Adam\'s state of generators '
        'and discriminators; "the rest" what the peak has besides, activations above all. CycleGAN has 32 channels, '
        "RevGAN 58. The paper's column, measured on a Tesla K40m, has its own split and contains what a GPU adds.",
        table(["generators", "depth", "parameters, million", "model", "the rest", "peak", "paper: model + rest"], rows),
        "Growth of the rest with each layer, MiB:",
        table(["generators", "simulated", "paper's GPU"], growth),
        "The paper's last model entry of RevGAN, 626.3 at depth 30, is that of CycleGAN at depth 18, and not on the "
        "line of the others (4.1 MiB a layer would give about 473): almost surely an error of copying.",
    )
    picture(folder / "revgan_memory.png", depths, steps)


if __name__ == "__main__":
    main()
