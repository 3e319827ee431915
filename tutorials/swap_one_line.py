# %% [markdown]
# # Your MONAI pipeline, one line changed
#
# An invertible network is a MONAI network like any other: it goes into the same configuration, the same trainer and the
# same inferer. In this notebook we
#
# 1. write a short MONAI pipeline, which segments brain tissue in 3D, and change one line of its configuration,
# 2. compare memory, time and Dice, and say what is better and what is not,
# 3. spend what was saved on larger patches.
#
# Nothing is downloaded, and no graphics card is needed. The images are simulated from one head template: a score here
# says nothing about patients. And it is one run with one seed, much shorter than a real training.

# %% [markdown]
# ## Setup
#
# Data and figures are written to `folder`: a temporary one, unless the environment variable `MONAI_DATA_DIRECTORY`
# names another. With `MONAI_INVERTIBLE_TUTORIAL=small` everything runs at a toy size, for automatic tests.

# %%
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from monai.transforms import Compose, MapLabelValued, NormalizeIntensityd, RandFlipd, RandSpatialCropd
from monai.utils import set_determinism

from monai_invertible import set_backprop
from monai_invertible.data import iseg_datalist, write_iseg_sample
from monai_invertible.memory import LiveBytes, estimate_training_step, largest_patch
from monai_invertible.transforms import LoadSubjectd

small = os.environ.get("MONAI_INVERTIBLE_TUTORIAL") == "small"
folder = Path(os.environ.get("MONAI_DATA_DIRECTORY") or tempfile.mkdtemp(), "swap_one_line")
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})

# %% [markdown]
# ## The pipeline
#
# The data have the form of the iSeg-2019 challenge: T1 and T2 of a small head, and a label of four values. If you have
# iSeg-2019, leave `write_iseg_sample` out and let `data` be your folder. Two subjects are never trained on.

# %%
size = 48 if small else 96  # voxels along the longest edge
data = write_iseg_sample(folder / "sample_data", subjects=4 if small else 8, size=size, overwrite=True)
folds = 2 if small else 4

label_values = [0, 10, 150, 250]  # background, cerebrospinal fluid, grey and white matter
tissues = ["CSF", "grey matter", "white matter"]
load = [
    LoadSubjectd(label_values=label_values),
    MapLabelValued("label", label_values, range(4)),
    NormalizeIntensityd("image", nonzero=True, channel_wise=True),
]
unseen = CacheDataset(iseg_datalist(data, "validation", folds=folds), Compose(load), progress=False)
image, label = unseen[0]["image"], unseen[0]["label"]
print(f"image {tuple(image.shape)}, label {tuple(label.shape)}, voxels of {image.pixdim[0]:.1f} mm")

# %% [markdown]
# Training takes random patches, whole heads are segmented patch by patch. The seed is set after the network has been
# built: so every network sees the same patches in the same order.


# %%
def train(network, steps, edge, batch_size=2):
    """MONAI's trainer on random patches; returns the number of steps (whole epochs) and the processor time."""
    set_determinism(0)
    keys = ["image", "label"]
    patch = [RandSpatialCropd(keys, roi_size=[edge] * 3, random_size=False), RandFlipd(keys, prob=0.5, spatial_axis=0)]
    items = iseg_datalist(data, "training", folds=folds)
    dataset = CacheDataset(items, Compose([*load, *patch]), progress=False)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=max(1, round(steps * batch_size / len(items))),
        train_data_loader=DataLoader(dataset, batch_size=batch_size, shuffle=True),
        network=network.to(device),
        optimizer=torch.optim.Adam(network.parameters(), lr=5e-3),
        loss_function=DiceCELoss(include_background=False, softmax=True, to_onehot_y=True),
    )
    start = time.process_time()
    trainer.run()
    return trainer.state.iteration, time.process_time() - start


def segment(network, image, edge):
    network.eval()
    inferer = SlidingWindowInferer(roi_size=[edge] * 3, overlap=0.25, mode="gaussian")
    with torch.no_grad():
        return inferer(image[None].as_tensor().to(device), network).argmax(dim=1, keepdim=True).cpu()


# %% [markdown]
# The network is described in a dictionary, as in a MONAI bundle.

# %%
config = {
    "_target_": "monai.networks.nets.UNet",
    "spatial_dims": 3,
    "in_channels": 2,
    "out_channels": 4,
    "channels": [12, 24, 48],
    "strides": [2, 2],
    "num_res_units": 2,
}


def build(config):
    set_determinism(0)
    return ConfigParser(config).get_parsed_content()


# %% [markdown]
# ## One line changed

# %%
swapped = {**config, "_target_": "monai_invertible.networks.FullyInvertibleUNet"}

# %% [markdown]
# `estimate_training_step` carries out one training step on tensors that have a size but no numbers: the memory below
# is simulated, and counts tensors only (parameters, gradients and the state of Adam included).

# %%
edge = 16 if small else 32  # of the patches


def describe(name, config):
    network = build(config)
    step = estimate_training_step(network, (2, 2, edge, edge, edge))
    print(
        f"{name:>26}: {sum(p.numel() for p in network.parameters()) / 1e3:4.0f} thousand parameters,"
        f" {step.activations / 2**20:5.1f} MiB kept by forward, {step.peak / 2**20:5.1f} MiB at the peak"
    )


describe("MONAI's UNet", config)
describe("Fully invertible", swapped)

# %% [markdown]
# The same dictionary makes a network with fewer parameters, which keeps less for the backward pass. The peaks are not
# as far apart, for two reasons. MONAI's `UNet` is thrifty: its first convolution halves the resolution, so hardly
# anything in it has the full size of the patch. And the invertible network does nearly all its work at full resolution:
# it holds few tensors, but large ones.
#
# **Depth needs no activations.** Each further unit costs the `UNet` some, and the invertible network only time and the
# parameters, with their gradients and the state of Adam. Three units instead of two bring it to about as many
# parameters as the `UNet` has.

# %%
deeper = {**swapped, "num_res_units": 3}
describe("Fully, 3 units", deeper)
describe("Fully, 12 units", {**deeper, "num_res_units": 12})
describe("MONAI's UNet, 12 units", {**config, "num_res_units": 12})

# %% [markdown]
# ### What inversion saves
#
# The fair comparison is within one network. All invertible networks take one more entry, `backprop`, which says how the
# activations come back in the backward pass; weights and results are the same. Beside it stands `PlainUNet`, the 3D
# U-Net of the literature, which works at full resolution too, and stores.

# %%
stored = {**deeper, "backprop": "store"}
plain = {key: value for key, value in config.items() if key != "num_res_units"}
plain["_target_"] = "monai_invertible.networks.PlainUNet"

describe("Fully, 3 units, stored", stored)
describe("the same, checkpointed", {**deeper, "backprop": "checkpoint"})
describe("the same, inverted", {**deeper, "backprop": "invert"})
describe("3D U-Net, stored", plain)

# %% [markdown]
# A simulation should be checked once. `LiveBytes` counts the tensors of a real step, and we take its processor time,
# the fastest of a few. `set_backprop` switches a network that exists already.

# %%
patches = torch.rand(2, 2, edge, edge, edge)


def measure(name, network):
    with LiveBytes() as live:
        network(patches).square().mean().backward()
    seconds = []
    for _ in range(2 if small else 4):
        start = time.process_time()
        network(patches).square().mean().backward()
        seconds.append(time.process_time() - start)
    network.zero_grad()
    print(f"{name:>18}: {min(seconds):.3f} s, {live.peak / 2**20:5.1f} MiB besides parameters, Adam and patches")


measure("MONAI's UNet", build(config))
network = build(deeper)
for mode in ("store", "checkpoint", "invert"):
    measure(f"Fully, {mode}", set_backprop(network, mode))

# %% [markdown]
# ## Training both
#
# The `UNet` is many times faster, so we train it twice: for as many steps as the invertible network, and for about as
# much time. The second is the harder test.

# %%
steps = 4 if small else 75


def train_and_score(name, config, steps, edge):
    network = build(config)
    done, seconds = train(network, steps, edge)
    pairs = [(segment(network, item["image"], edge), item["label"][None].as_tensor()) for item in unseen]
    scores = torch.cat([compute_dice(one_hot(a, 4), one_hot(b, 4), include_background=False) for a, b in pairs]).mean(0)
    each = ", ".join(f"{tissue} {score:.3f}" for tissue, score in zip(tissues, scores, strict=True))
    print(f"{name:>24}: {done:3} steps, {seconds:3.0f} s, Dice {scores.mean():.3f} ({each})")
    return network, seconds


invertible, seconds = train_and_score("Fully invertible", deeper, steps, edge)
unet, unet_seconds = train_and_score("MONAI's UNet", config, steps, edge)
more_steps = 2 * steps if small else steps * seconds / unet_seconds
longer, _ = train_and_score("MONAI's UNet, same time", config, more_steps, edge)

# %% [markdown]
# A slice of an unseen subject (T1), with the tissues in colour:

# %%
panels = {
    "T1": torch.zeros_like(label),
    "truth": label,
    "MONAI's UNet": segment(unet, image, edge)[0],
    "UNet, same time": segment(longer, image, edge)[0],
    "Fully invertible": segment(invertible, image, edge)[0],
}
rows, columns = (slice(index.min(), index.max() + 1) for index in label[0].amax(dim=2).nonzero().T)
view = (0, rows, columns, image.shape[3] * 6 // 10)
colours = ListedColormap(["#0072b2", "#e69f00", "#cc3311"])

figure, axes = plt.subplots(1, 5, figsize=(11, 3.3), layout="constrained")
for axis, (title, classes) in zip(axes, panels.items(), strict=True):
    axis.imshow(image[view].T, cmap="gray", origin="lower", vmin=-3, vmax=2)
    painted = np.ma.masked_equal(classes[view].T, 0)
    axis.imshow(painted, cmap=colours, vmin=1, vmax=3, alpha=0.8, origin="lower", interpolation="nearest")
    axis.set_title(title)
    axis.axis("off")
handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.colors]
figure.legend(handles, tissues, loc="outside lower center", ncols=3, frameon=False)
figure.savefig(folder / "overlay.png")
plt.show()

# %% [markdown]
# ## Spending the saving
#
# How large a patch fits into a given memory? `largest_patch` finds out by simulation, before there is a machine.

# %%
budget = 2**26 if small else 2 * 2**30  # bytes
edges = [16, 32] if small else [32, 64, 96, 128, 160]  # of the plot
choices = {
    "Fully invertible, stored": (stored, "#777777"),
    "3D U-Net, stored": (plain, "#c98500"),
    "MONAI's UNet": (config, "#5e4fa2"),
    "Fully invertible, inverted": (deeper, "#00796b"),
}


def step(network, n):
    return estimate_training_step(network, (2, 2, n, n, n))


figure, axis = plt.subplots(figsize=(7.5, 4), layout="constrained")
for name, (settings, colour) in choices.items():
    of_patch = partial(step, build(settings))
    best = largest_patch(of_patch, budget, up_to=64 if small else 256)
    print(f"{name:>28}: patches of {best} x {best} x {best}")
    axis.plot(edges, [of_patch(n).peak / 2**30 for n in edges], marker="o", markersize=4, color=colour, label=name)
axis.axhline(budget / 2**30, color="black", linewidth=1, linestyle=":", label="the budget")
axis.set(xlabel="edge of the patch, voxels", ylabel="peak of a training step, GiB", xticks=edges)
axis.set_title("Two patches in a batch (simulated)", loc="left", fontsize=11)
axis.legend(frameon=False)
figure.savefig(folder / "memory_against_patch.png")
plt.show()

# %% [markdown]
# So the saving is large against networks of full resolution, and none against MONAI's `UNet`, as long as it has two
# units only.
#
# Now at our toy size. Let the budget be what the *stored* network needs with the patches above; the inverted one trains
# on larger patches within it. We take fewer steps, so that it sees as many voxels as before, in about the same time.

# %%
allowed = step(build(stored), edge).peak
larger = largest_patch(partial(step, build(deeper)), allowed, multiple_of=8, up_to=24 if small else 48)
print(f"within {allowed / 2**20:.0f} MiB: stored {edge} x {edge} x {edge}, inverted {larger} x {larger} x {larger}")
network, _ = train_and_score(f"Fully, patches of {larger}", deeper, steps * (edge / larger) ** 3, larger)

# %% [markdown]
# Larger patches did not pay here: a few large steps have taught the network less than many small ones. They show more
# of the anatomy at once, which matters in long trainings of tasks that need it. It is the same saving that can be spent
# on depth, on width or on the batch.
#
# ## What is better, and what is not
#
# - **Changing the network was one line.** Data, loss, trainer and inferer stayed as they were.
# - **Memory:** inversion needs a fifth of what the same network needs stored, and less than half of what it needs
#   checkpointed, at 1.1 times the time of checkpointing and 1.4 times that of storing. Units are added for their
#   parameters only.
# - **Dice, step by step:** at about as many parameters and on the same patches, the invertible network was ahead.
# - **Dice, second by second:** MONAI's `UNet` was slightly ahead, by about as much as it varies when the number of
#   steps does. It is much faster. Where it fits into memory and scores well enough, there is no reason to change.
#
# So swap when memory is what limits you: when the network should be deep, or should work at full resolution, and does
# not fit. Try it on your data; one short run on simulated heads cannot decide it for you.
#
# Next: [Why invert?](why_invert.ipynb) explains how it works, and the bundle
# [iseg_invres_segmentation](../bundles/iseg_invres_segmentation/docs/README.md) is the complete training.
