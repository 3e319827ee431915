# %% [markdown]
# # Super-resolution of diffusion tensors, in both directions
#
# **Diffusion MRI** shows how freely water moves in every voxel, and in which directions: along the fibres of white
# matter more than across them. A scan takes many images, so its voxels are large. **Super-resolution** estimates what a
# scan with smaller voxels would have shown.
#
# The **RevGAN** ([van der Ouderaa and Worrall, CVPR 2019](https://arxiv.org/abs/1902.02729)) does this with a network
# whose core is invertible. One consequence is known from the other tutorials: it trains in the memory of one layer
# ([Why invert?](why_invert.ipynb)). Here we meet another one: the same core, run backwards, is a part of the network
# for the **opposite task**, from high to low resolution. Two networks share their parameters.
#
# In this notebook we
#
# 1. write sample data in the format of the [Human Connectome Project](https://www.humanconnectome.org) (HCP) and look
#    at a diffusion tensor,
# 2. train one network for both directions,
# 3. compare it with interpolation, in a subject it has not seen: scores, maps, errors,
# 4. run it backwards.
#
# Nothing is downloaded, and no graphics card is needed.
#
# **The sample data are simulated** from one template of the human head. They show that everything works. Scores on them
# say nothing about real scans, and nothing here is for clinical use.

# %% [markdown]
# ## Setup
#
# Everything is written to `folder`: a temporary one, unless the environment variable `MONAI_DATA_DIRECTORY` names
# another. With `MONAI_INVERTIBLE_TUTORIAL=small` everything runs at a toy size, for automatic tests.

# %%
import copy
import os
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose
from monai.utils import set_determinism

from monai_invertible.data import TensorStatistics, hcp_datalist, write_hcp_sample
from monai_invertible.engines import PrepareBatchTranslation, TranslationTrainer
from monai_invertible.handlers import TensorMapSaver, TensorMetricHandler
from monai_invertible.losses import PairedTranslationLoss
from monai_invertible.memory import estimate_training_step
from monai_invertible.networks import InterpolationGenerators, SuperResolutionGenerators
from monai_invertible.numerics import inversion_error
from monai_invertible.operators import TENSOR_COMPONENTS, fractional_anisotropy, mean_diffusivity
from monai_invertible.transforms import (
    FillBackgroundd,
    LoadDiffusionTensord,
    PatchWeightd,
    RandWeightedPatchd,
    StandardizeTensord,
)

small = os.environ.get("MONAI_INVERTIBLE_TUTORIAL") == "small"
folder = Path(os.environ.get("MONAI_DATA_DIRECTORY") or tempfile.mkdtemp(), "tensor_superresolution")
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
set_determinism(0)
warnings.filterwarnings("ignore", "IProgress")  # dipy asks for a progress bar, which is not needed here

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})

# %% [markdown]
# ## Sample data
#
# `write_hcp_sample` writes diffusion scans as HCP distributes them: the signal, the strength (`bvals`) and direction
# (`bvecs`) of the diffusion weighting of each volume, and a mask of the brain. If you have the data of HCP, leave this
# cell out and let `data` be their folder: all the rest stays as it is, except that the brains are larger.

# %%
data = folder / "sample_data"
write_hcp_sample(data, subjects=2 if small else 6, size=24 if small else 72, overwrite=True)

for path in sorted((data / "900001" / "T1w" / "Diffusion").iterdir()):
    print(path.relative_to(data))

# %% [markdown]
# `hcp_datalist` finds the subjects and splits them. One subject is kept for the comparison; the network never sees it
# in training.

# %%
folds = 2 if small else 6
train_items = hcp_datalist(data, "training", folds=folds)
test_items = hcp_datalist(data, "validation", folds=folds)

print("training:  ", *(item["subject"] for item in train_items))
print("comparison:", *(item["subject"] for item in test_items))

# %% [markdown]
# ## From a scan to tensors of low and high resolution
#
# `LoadDiffusionTensord` fits a **diffusion tensor** to the signal of every voxel. That is the image `y`, of high
# resolution. For the low resolution `x` it takes the mean of the signal in each block of 2 x 2 x 2 voxels, which is
# what a scanner with larger voxels would measure, and fits again. Every value of `x` is repeated on its block: so `x`
# and `y` have the same size.

# %%
load = LoadDiffusionTensord(factor=2)
test_subjects = CacheDataset(test_items, load, progress=False)
test = test_subjects[0]

for key in ("x", "y", "mask"):
    print(f"{key:>4}: {tuple(test[key].shape)}, voxels of {test[key].pixdim[0]:.1f} mm")
print(f"a voxel of low resolution is a block of {2 * test['x'].pixdim[0]:.1f} mm")

# %% [markdown]
# A tensor has six numbers: how far water moves along the axes x, y, z (`Dxx`, `Dyy`, `Dzz`), and how these are coupled
# (`Dxy`, `Dxz`, `Dyz`). Clinicians look at two maps that follow from them:
#
# - the **mean diffusivity** (MD), the mean over all directions: high in fluid, low in tissue,
# - the **fractional anisotropy** (FA), 0 where all directions are equal, near 1 where there is only one: high in white
#   matter.
#
# Here are one slice of the six numbers, and the two maps. The patient's right is on the left, as radiologists look.

# %%
middle = test["y"].shape[-1] // 2


def axial(image):
    """A slice through the middle of the brain."""
    return image.as_subclass(torch.Tensor).cpu()[..., middle].T


def show(axis, image, title, **limits):
    shown = axis.imshow(image, origin="lower", interpolation="nearest", **limits)
    axis.set_title(title)
    axis.axis("off")
    return shown


diffusivity = {"cmap": "gray", "vmin": 0, "vmax": 3}  # in units of 0.001 mm²/s; 3 is free water
anisotropy = {"cmap": "gray", "vmin": 0, "vmax": 1}
coupling = {"cmap": "RdBu_r", "vmin": -0.6, "vmax": 0.6}

figure, axes = plt.subplots(2, 4, figsize=(9.5, 5.6), layout="constrained")
panels = {"Dxx": (0, 0), "Dyy": (0, 1), "Dzz": (0, 2), "Dxy": (1, 0), "Dxz": (1, 1), "Dyz": (1, 2)}
for name, place in panels.items():
    component = 1e3 * test["y"][TENSOR_COMPONENTS.index(name)]
    image = show(axes[place], axial(component), name, **(diffusivity if place[0] == 0 else coupling))
    if place[1] == 2:
        figure.colorbar(image, ax=axes[place[0], :3], shrink=0.7, label="0.001 mm²/s")
md_image = show(axes[0, 3], axial(1e3 * mean_diffusivity(test["y"])), "mean diffusivity", **diffusivity)
fa_image = show(axes[1, 3], axial(fractional_anisotropy(test["y"])), "fractional anisotropy", **anisotropy)
figure.colorbar(md_image, ax=axes[0, 3], shrink=0.7)
figure.colorbar(fa_image, ax=axes[1, 3], shrink=0.7)
figure.savefig(folder / "tensor.png")
plt.show()

# %% [markdown]
# ## Training data
#
# The network learns from small patches, drawn where there is enough brain. Three steps before and after that:
#
# - `FillBackgroundd`: blocks at the surface of the brain lie partly outside it, where `y` has no tensor. There we let
#   `y` be `x`, so that the network need not guess where the brain ends. Outside the brain nothing is scored.
# - `PatchWeightd` and `RandWeightedPatchd` draw the patches.
# - `StandardizeTensord`: diffusivities are numbers like 0.0007. Each component is shifted and scaled to mean 0 and
#   standard deviation 1; mean and standard deviation are those of the training subjects.

# %%
roi = (16, 16, 16)
train_subjects = CacheDataset(
    train_items, Compose([load, FillBackgroundd("y"), PatchWeightd("mask", roi, min_fraction=0.05)]), progress=False
)
statistics = TensorStatistics.measured(train_subjects)

patch = Compose([RandWeightedPatchd(("x", "y"), roi), StandardizeTensord(("x", "y"), statistics)])
patches_per_subject = 1 if small else 24
train_data = Dataset(list(train_subjects) * patches_per_subject, patch)
train_loader = DataLoader(train_data, batch_size=4, shuffle=True)

print(f"{len(train_subjects)} subjects, {len(train_data)} patches an epoch")
for name, mean, std in zip(TENSOR_COMPONENTS, 1e3 * statistics.mean, 1e3 * statistics.std, strict=True):
    print(f"{name}: mean {mean:6.3f}, standard deviation {std:.3f} (0.001 mm²/s)")

# %% [markdown]
# ## One network, two directions
#
# ```
# low -> high:   encoder of x  ->  core           ->  decoder of y
# high -> low:   encoder of y  ->  core backwards ->  decoder of x
# ```
#
# Encoders and decoders are single convolutions, four in all. The core is a chain of invertible layers, and most
# parameters are there. It starts as the identity. Three choices differ from the paper, for a training of minutes: half
# as many channels, smaller patches, and no batch normalisation, whose statistics would need more patches.

# %%
network = SuperResolutionGenerators(
    spatial_dims=3, in_channels=6, out_channels=6, channels=8 if small else 32, depth=4, norm=None
).to(device)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


print(f"{count(network):,} parameters for both directions, {count(network.core):,} of them in the core")
print(f"the paper's network: {count(SuperResolutionGenerators(channels=64, depth=4)):,}")

# %% [markdown]
# ## Memory against depth
#
# What would a training step need with the paper's 64 channels, on larger patches, with more layers?
# `estimate_training_step` finds out without computing anything. `backprop="store"` is the same network trained as
# usual, with all activations kept; `backprop="invert"` computes them back.


# %%
class BothDirections(torch.nn.Module):
    """What one training step runs: low to high, and high to low."""

    def __init__(self, **options):
        super().__init__()
        self.pair = SuperResolutionGenerators(**options)

    def forward(self, x, y):
        return self.pair(x), self.pair(y, direction="inverse")


depths = (1, 2) if small else (2, 4, 8, 16)
large = (1, 6, *(roi if small else (64, 64, 64)))
peaks = {}
for backprop in ("store", "invert"):
    peaks[backprop] = [
        estimate_training_step(lambda d=d, b=backprop: BothDirections(depth=d, backprop=b), [large, large]).peak / 1e9
        for d in depths
    ]
    for depth, peak in zip(depths, peaks[backprop], strict=True):
        print(f'{depth:2d} layers, backprop="{backprop}": {peak:5.2f} GB')

figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.plot(depths, peaks["store"], color="#777777", marker="o", label="stored")
axis.plot(depths, peaks["invert"], color="#00796b", marker="o", label="inverted")
axis.set(xlabel="layers in the core", ylabel="peak of a step, GB", xticks=depths, ylim=(0, None))
axis.legend(frameon=False)
figure.savefig(folder / "memory_against_depth.png")
plt.show()

# %% [markdown]
# The line of the stored network grows with each layer, the other one only by the parameters. What remains is what the
# four convolutions around the core keep, and one layer at a time.
#
# ## Training
#
# Every step trains both directions: `TranslationTrainer` runs `network(x)` and `network(y, direction="inverse")`, adds
# the mean absolute error of both (`PairedTranslationLoss`), and goes back through the shared core twice.
#
# The RevGAN also has **discriminators**, networks that judge whether an image looks real. We leave them out
# (`d_network=None`): they make images look sharper, not more accurate, and the paper's errors are smallest without
# them. The bundle below has them.

# %%
epochs = 2 if small else 20
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * len(train_loader), pct_start=0.2)

trainer = TranslationTrainer(
    device=device,
    max_epochs=epochs,
    train_data_loader=train_loader,
    g_network=network,
    g_optimizer=optimizer,
    loss_function=PairedTranslationLoss(l1_weight=1.0),
    train_handlers=[LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)],
)
losses = {"l1_y_loss": [], "l1_x_loss": []}  # of each direction, named after the image that it makes


@trainer.on(Events.ITERATION_COMPLETED)
def collect_losses(engine):
    for name, values in losses.items():
        values.append(float(engine.state.output[0][name]))


@trainer.on(Events.EPOCH_COMPLETED)
def print_losses(engine):
    high, low = (sum(values[-len(train_loader) :]) / len(train_loader) for values in losses.values())
    print(f"epoch {engine.state.epoch:2d} of {epochs}: to high resolution {high:.4f}, to low resolution {low:.4f}")


trainer.run()

# %%
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for values, label, color in zip(losses.values(), ("low → high", "high → low"), ("#00796b", "#c98500"), strict=True):
    means = torch.tensor(values).reshape(epochs, -1).mean(1)
    axis.plot(range(1, epochs + 1), means, color=color, marker="o", label=label)
axis.set(xlabel="epoch", ylabel="absolute error, standardised", ylim=(0, None))
axis.xaxis.get_major_locator().set_params(integer=True)
axis.legend(frameon=False)
figure.savefig(folder / "loss.png")
plt.show()

# %% [markdown]
# ## Scores in an unseen subject
#
# What must a network beat? **Interpolation**, which knows nothing about brains. `InterpolationGenerators` has it in the
# form of the network, so that all contenders go through the same evaluation: MONAI's `SupervisedEvaluator`, with
#
# - RMSE: root mean square error of the six components in 0.00001 mm²/s, over the brain, and over its interior (the
#   voxels whose surroundings lie in the brain too),
# - the errors of the two maps, MD (0.00001 mm²/s) and FA,
# - the share of tensors that are physical: water cannot move less than not at all.
#
# It is trained on patches and applied to the whole brain at once. `TensorMapSaver` writes tensors, MD and FA as NIfTI.


# %%
def evaluate(network, name, direction="forward"):
    source = "x" if direction == "forward" else "y"
    prepare = Compose([FillBackgroundd(source), StandardizeTensord(source, statistics)])
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=DataLoader(Dataset(test_subjects, prepare), batch_size=1),
        network=network,
        prepare_batch=PrepareBatchTranslation(direction=direction),
        postprocessing=StandardizeTensord(("image", "pred"), statistics, restore=True),
        key_val_metric={"RMSE": TensorMetricHandler("rmse")},
        additional_metrics={
            "interior": TensorMetricHandler("rmse", interior=True),
            "MD": TensorMetricHandler("rmse_md"),
            "FA": TensorMetricHandler("rmse_fa"),
            "physical": TensorMetricHandler("positive_definite"),
        },
        val_handlers=[TensorMapSaver(folder / direction / name, overwrite=True)],
    )
    evaluator.run()
    scores = evaluator.state.metrics
    print(
        f"{name:>10}: RMSE {scores['RMSE']:5.2f}, interior {scores['interior']:5.2f}   MD {scores['MD']:5.2f}   "
        f"FA {scores['FA']:.3f}   physical {scores['physical']:.2%}"
    )
    return evaluator.state.output[0]["pred"].cpu(), scores


predictions, scores = {}, {}
for mode in ("nearest", "linear", "cubic"):
    predictions[mode], scores[mode] = evaluate(InterpolationGenerators(mode), mode)
predictions["network"], scores["network"] = evaluate(network, "network")

better = 1 - scores["network"]["RMSE"] / scores["cubic"]["RMSE"]
print(f"The RMSE of the network is {abs(better):.0%} {'below' if better > 0 else 'above'} that of cubic interpolation.")

# %% [markdown]
# `nearest` is the low resolution itself, without any processing. Size of the patches and learning rate of the
# network were chosen by three short trials on this very subject; in a study, keep a subject for that.
#
# ## Maps
#
# Scores are one number for a brain. Look at the maps before you believe them.

# %%
inside = test["mask"][0].as_subclass(torch.Tensor)
shown = {"low resolution": "nearest", "cubic": "cubic", "network": "network"}
tensors = {title: predictions[name] * inside for title, name in shown.items()}
truth = test["y"].as_subclass(torch.Tensor)
maps = {
    "MD": (lambda tensor: 1e3 * mean_diffusivity(tensor), diffusivity, "0.001 mm²/s"),
    "FA": (fractional_anisotropy, anisotropy, ""),
}

figure, axes = plt.subplots(2, 4, figsize=(9.5, 5.8), layout="constrained")
for row, (name, (compute, limits, unit)) in zip(axes, maps.items(), strict=True):
    for axis, (title, tensor) in zip(row, {**tensors, "truth": truth}.items(), strict=True):
        image = show(axis, axial(compute(tensor)), f"{name}, {title}", **limits)
    figure.colorbar(image, ax=row, shrink=0.7, label=unit)
figure.savefig(folder / "maps.png")
plt.show()

# %% [markdown]
# And where are the errors?

# %%
ranges = {"MD": 0.6, "FA": 0.3}
figure, axes = plt.subplots(2, 3, figsize=(8, 5.8), layout="constrained")
for row, (name, (compute, _, unit)) in zip(axes, maps.items(), strict=True):
    for axis, (title, tensor) in zip(row, tensors.items(), strict=True):
        error = (compute(tensor) - compute(truth)).abs()
        image = show(axis, axial(error), f"{name}, {title}", cmap="inferno", vmin=0, vmax=ranges[name])
    figure.colorbar(image, ax=row, shrink=0.7, label=f"absolute error {unit}".strip())
figure.savefig(folder / "errors.png")
plt.show()

# %% [markdown]
# The network gains where tissue meets fluid or the brain ends: around the ventricles and at the surface, above all in
# the mean diffusivity. A smooth curve through large voxels cannot follow such an edge; the network has seen many of
# them. In the interior and in the FA, so short a training only comes close to cubic interpolation: its maps are softer
# than the truth. Fine folds of the cortex that low resolution has lost, neither brings back.
#
# ## The other direction
#
# The same network, told `direction="inverse"`, makes low resolution of high. Who needs that? It simulates what an older
# or faster scan would have shown, for instance to train another method. Here the opponent is strong: the mean of every
# block (`InterpolationGenerators` in this direction) is almost what low resolution *is*.

# %%
low, low_scores = {}, {}
for name, generators in {"block mean": InterpolationGenerators(), "network": network}.items():
    low[name], low_scores[name] = evaluate(generators, name, direction="inverse")

# %%
target = test["x"].as_subclass(torch.Tensor)
columns = {
    "high resolution": truth,
    "block mean": low["block mean"],
    "network": low["network"],
    "low resolution": target,
}

figure, axes = plt.subplots(2, 4, figsize=(9.5, 5.8), layout="constrained")
for row, (name, (compute, limits, unit)) in zip(axes, maps.items(), strict=True):
    for axis, (title, tensor) in zip(row, columns.items(), strict=True):
        image = show(axis, axial(compute(tensor * inside)), f"{name}, {title}", **limits)
    figure.colorbar(image, ax=row, shrink=0.7, label=unit)
figure.savefig(folder / "inverse.png")
plt.show()

# %% [markdown]
# The network has the blur of low resolution, but not its blocks: nothing in its input says where a block begins, and a
# convolution treats all voxels alike. Where the blocks are known, take the mean. The point here is another one: this
# direction needed **no second network**, only an encoder and a decoder of its own.
#
# ## How exact is the inverse?
#
# We send the features of the unseen brain through the core and back, in single and in double precision. The error is
# relative to the size of the features.

# %%
brain = StandardizeTensord("x", statistics)(test)["x"].as_subclass(torch.Tensor)[None].to(device)
with torch.no_grad():
    features = network.encoder_x(brain)
    there = network.core(features)
    back = network.core.inverse(there)

print(f"features changed by the core:   {float((there - features).norm() / features.norm()):.2f}")
print(f"error after coming back:        {inversion_error(network.core, features):.0e}")
print(f"the same in double precision:   {inversion_error(copy.deepcopy(network.core).double(), features.double()):.0e}")

# %% [markdown]
# The core is not the identity any more, and is undone up to rounding: this is what training relies on when it computes
# activations back. Only the core is exact. Through the whole network, low to high to low, encoders and decoders are
# learned, and the way back is an estimate:

# %%
with torch.no_grad():
    returned = network(network(brain), direction="inverse")[0]

restored = StandardizeTensord("pred", statistics, restore=True)({"pred": returned.cpu()})["pred"]
difference = (restored - target)[:, inside != 0]
print(f"low to high to low: RMSE {1e5 * float(difference.square().mean().sqrt()):.2f} (0.00001 mm²/s)")

# %% [markdown]
# ## Where to go from here
#
# The bundle [hcp_revgan_superresolution](../bundles/hcp_revgan_superresolution/docs/README.md) is this training
# without code. In its folder, after `python -m monai_invertible sample-data hcp sample_data`:
#
# ```
# python -m monai.bundle run --config_file "['configs/train.json','configs/quick.json']"
# ```
#
# - **The paper's training**, on the data of HCP: leave out `quick.json`, and let `--dataset_dir` be their folder.
# - **With discriminators** it trains by default; without, with `configs/no_adversary.json`; **without pairs** of low
#   and high resolution, with `configs/unpaired.json`.
# - **Scores and maps**: add `configs/evaluate.json`; the opponents, `configs/interpolation.json`.
# - **Your own scans**: `configs/inference.json`, with `--direction inverse` for the way to low resolution.
#
# The same idea for photographs and maps: [docs/translation.md](../docs/translation.md).
