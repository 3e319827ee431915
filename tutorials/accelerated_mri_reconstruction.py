# %% [markdown]
# # Reconstructing accelerated MRI with i-RIM
#
# An MRI scanner does not measure an image. It measures **k-space**, the Fourier transform of the image, one line after
# another, and every line takes time. Measuring only every fourth line makes the scan four times faster, but the image
# that comes out of it has artefacts. A network can learn to remove them.
#
# The **i-RIM** (invertible recurrent inference machine, [Putzky and Welling, NeurIPS
# 2019](https://arxiv.org/abs/1911.10914)) does this in steps, as an iterative reconstruction does: in each step it
# compares its image with the measured data, and a network decides how to correct the image. It is invertible, so its
# training needs the memory of one layer, however many steps it takes ([Why invert?](why_invert.ipynb)).
#
# In this notebook we
#
# 1. write sample data in the format of [fastMRI](https://fastmri.med.nyu.edu) and look at k-space,
# 2. train a small i-RIM with MONAI's `SupervisedTrainer`,
# 3. compare it with the image without any reconstruction: errors and scores,
# 4. do the same with a **bundle**: no code, one command.
#
# Nothing is downloaded, and no graphics card is needed.
#
# **The sample data are simulated** from real MRI. They show that everything works. Scores on them say nothing about
# real scans, and nothing here is for clinical use.

# %% [markdown]
# ## Setup
#
# Everything is written to `folder`: a temporary one, unless the environment variable `MONAI_DATA_DIRECTORY` names
# another. With `MONAI_INVERTIBLE_TUTORIAL=small` everything runs at a toy size, for automatic tests.

# %%
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, from_engine
from monai.transforms import Compose
from monai.utils import set_determinism

from monai_invertible.data import fastmri_datalist, write_fastmri_sample
from monai_invertible.engines import PrepareBatchKspace
from monai_invertible.handlers import FastMRIMetricHandler, ReconstructionSaver
from monai_invertible.losses import SubsampledNMSELoss
from monai_invertible.memory import estimate_training_step
from monai_invertible.metrics import central_region
from monai_invertible.networks import InvertibleRIM, ZeroFilled
from monai_invertible.operators import magnitude
from monai_invertible.transforms import CropKspaced, LoadFastMRId, ReferenceImaged, UndersampleKspaced

small = os.environ.get("MONAI_INVERTIBLE_TUTORIAL") == "small"
folder = Path(os.environ.get("MONAI_DATA_DIRECTORY") or tempfile.mkdtemp(), "accelerated_mri_reconstruction")
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
set_determinism(0)

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})

# %% [markdown]
# ## Sample data
#
# `write_fastmri_sample` writes HDF5 files as fastMRI distributes them, one for each subject. The subjects are random
# deformations of the MNI152 brain template, which comes with the package nilearn. If you have the fastMRI data, leave
# this cell out and let `data` be the folder of your download: all the rest stays as it is.

# %%
size = 32 if small else 96  # rows and columns of an image
subjects = {"train": 2, "val": 1, "test": 0, "slices": 2} if small else {"train": 8, "val": 2, "test": 0, "slices": 8}
data = folder / "sample_data"
write_fastmri_sample(data, size=size, **subjects, overwrite=True)

for path in sorted(data.glob("*/*.h5")):
    print(path.relative_to(folder))

# %% [markdown]
# `fastmri_datalist` lists the slices of such a folder. It reads only the headers of the files.

# %%
train_items = fastmri_datalist(data / "singlecoil_train")
val_items = fastmri_datalist(data / "singlecoil_val")

print(len(train_items), "slices to train on,", len(val_items), "slices to validate with. The first one:")
for key, value in train_items[0].items():
    print(f"    {key}: {Path(value).name if key == 'kspace' else value}")

# %% [markdown]
# ## From a file to the input of a network
#
# Four transforms, used like all dictionary transforms of MONAI:
#
# - `LoadFastMRId` reads the k-space of a slice,
# - `CropKspaced` cuts out a part of the *image* and computes the k-space which that part would have,
# - `ReferenceImaged` computes the image of the complete k-space: the target of the training,
# - `UndersampleKspaced` keeps the columns of k-space that a four times faster scan would have measured: all columns in
#   the centre, which hold the coarse structure, and others at random; on average, every fourth. The rest becomes zero.
#
# Whole images are used for validation, always with the same mask for the same file.

# %%
columns = {"center_fractions": [0.08], "accelerations": [4]}
val_transform = Compose(
    [LoadFastMRId(), ReferenceImaged(), UndersampleKspaced(**columns, seed_by_filename=True)],
)
val_data = CacheDataset(val_items, val_transform, progress=False)
val_loader = DataLoader(val_data, batch_size=1)

for key in ("kspace", "mask", "target", "reference"):
    print(f"{key:>10}: {tuple(val_data[0][key].shape)}")

# %% [markdown]
# Complex numbers are stored as two real ones: in k-space the last dimension holds real and imaginary part, in an image
# they are two channels. `reference` is the magnitude image in the file, with which reconstructions are compared.

# %% [markdown]
# ## What a fast scan does to an image
#
# The *zero-filled* image takes the missing columns as zero: no reconstruction at all. Missing columns smear the image
# from left to right.

# %%
item = val_data[len(val_data) // 2]
full_kspace = Compose([LoadFastMRId()])(val_items[len(val_items) // 2])["kspace"]
zero_filled = ZeroFilled()(item["kspace"][None], mask=item["mask"][None])


def picture(image):
    """The magnitude of a complex image, cropped to the field of view of the file."""
    return central_region(magnitude(image.cpu()), item["recon_size"])[0, 0]


def logarithm(kspace):
    """K-space as a picture: values far from the centre are tiny, so we show their logarithm."""
    return (kspace.square().sum(-1).sqrt()[0] + 1e-7).log10()


full = picture(item["target"][None])
mask = item["mask"][0, :, :, 0].expand(full_kspace.shape[1], -1)
panels = {
    "k-space, all columns": (logarithm(full_kspace), {"vmin": -7}),
    f"mask, {mask.mean():.0%} of the columns": (mask, {}),
    "k-space, measured columns": (logarithm(item["kspace"]), {"vmin": -7}),
    "image of all columns": (full, {"vmax": full.max()}),
    "zero-filled image": (picture(zero_filled), {"vmax": full.max()}),
    "difference, twice as bright": ((picture(zero_filled) - full).abs(), {"vmax": full.max() / 2}),
}

figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
for axis, (title, (image, limits)) in zip(axes.flat, panels.items(), strict=True):
    axis.imshow(image, cmap="gray", aspect="auto", interpolation="nearest", **limits)
    axis.set_title(title)
    axis.axis("off")
figure.savefig(folder / "undersampling.png")
plt.show()

# %% [markdown]
# ## Training data
#
# We train on crops. The scanner measures twice as many rows as the image needs; the first crop removes this empty
# margin. The second one takes some rows at a random height, in full width: because whole columns of k-space are
# missing, the artefacts run from left to right, and every row shows them completely. Every time a slice is used it gets
# a new crop and a new mask.

# %%
rows = 16 if small else 32
train_transform = Compose(
    [
        LoadFastMRId(),
        CropKspaced(roi_size=[size, size]),
        CropKspaced(roi_size=[rows, size], random_position=True),
        ReferenceImaged(),
        UndersampleKspaced(**columns),
    ]
)
train_data = CacheDataset(train_items, train_transform, progress=False)
train_loader = DataLoader(train_data, batch_size=2, shuffle=True)

# %% [markdown]
# ## The network
#
# An i-RIM is described by the number of its steps and the channels of its state: two of them are the image, the others
# are its memory. `downsample` lists the invertible layers of a step, and how coarsely each of them looks at the image.
# The paper starts from an empty image; a small network learns faster when it starts from the zero-filled one.

# %%
network = InvertibleRIM(
    spatial_dims=2,
    steps=2 if small else 4,
    channels=16,
    hidden_channels=8 if small else 32,
    downsample=[1, 2, 4, 4, 2, 1],
    initial="zero_filled",
).to(device)

print(
    f"{sum(p.numel() for p in network.parameters()):,} parameters, {len(network.chain)} layers in its invertible chain"
)

# %% [markdown]
# This one is small, so that it trains in minutes. The network of the paper has 8 steps and 64 channels. What would a
# training step with it need? `estimate_training_step` finds out without computing anything; `backprop="store"` is the
# same network trained as usual.


# %%
def paper_irim(backprop):
    return InvertibleRIM(spatial_dims=2, steps=2 if small else 8, channels=64, backprop=backprop)


crop = (480, 320)
inputs = {"kspace": (1, 1, *crop, 2), "mask": (1, 1, 1, crop[1], 1)}
for backprop in ("store", "invert"):
    report = estimate_training_step(lambda mode=backprop: paper_irim(mode), inputs)
    print(f'backprop="{backprop}": {report.peak / 2**30:.2f} GiB for one crop of {crop[0]} x {crop[1]} pixels')

# %% [markdown]
# ## Training
#
# MONAI's `SupervisedTrainer` does the work. `PrepareBatchKspace` tells it which parts of a batch the network needs (the
# k-space and its mask), and which one is the target. The loss is the normalised mean squared error of the complex
# image.

# %%
epochs = 2 if small else 12
optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * len(train_loader), pct_start=0.15)

trainer = SupervisedTrainer(
    device=device,
    max_epochs=epochs,
    train_data_loader=train_loader,
    network=network,
    optimizer=optimizer,
    loss_function=SubsampledNMSELoss(ratio=1.0),
    prepare_batch=PrepareBatchKspace(),
    train_handlers=[LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)],
)

# %% [markdown]
# Two small functions follow the training: one collects the loss of every iteration, one prints its mean after every
# epoch.

# %%
losses = []


@trainer.on(Events.ITERATION_COMPLETED)
def collect_loss(engine):
    losses.append(from_engine(["loss"], first=True)(engine.state.output))


@trainer.on(Events.EPOCH_COMPLETED)
def print_loss(engine):
    recent = losses[-len(train_loader) :]
    print(f"epoch {engine.state.epoch:2d} of {epochs}: mean loss {sum(recent) / len(recent):.4f}")


trainer.run()

# %%
means = torch.tensor(losses).reshape(epochs, -1).mean(1)
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.plot(torch.arange(len(losses)) / len(train_loader), losses, color="#bbbbbb", linewidth=1, label="every iteration")
axis.plot(torch.arange(epochs) + 0.5, means, color="#00796b", linewidth=2, marker="o", label="mean of an epoch")
axis.set(xlabel="epoch", ylabel="normalised mean squared error", yscale="log")
axis.legend(frameon=False)
figure.savefig(folder / "loss.png")
plt.show()

# %% [markdown]
# ## Reconstruction
#
# The network takes the measured k-space of a whole slice, of any size. Next to it stand the zero-filled image and the
# errors of both, in units of the brightest pixel.

# %%
network.eval()
with torch.no_grad():
    reconstruction = network(item["kspace"][None].to(device), mask=item["mask"][None].to(device))

images = {"zero-filled": picture(zero_filled), "i-RIM": picture(reconstruction)}

figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
for axis, (title, image) in zip(axes[0], {"all columns": full, **images}.items(), strict=True):
    axis.imshow(image, cmap="gray", vmin=0, vmax=full.max())
    axis.set_title(title)
for axis, (title, image) in zip(axes[1, 1:], images.items(), strict=True):
    shown = axis.imshow((image - full).abs() / full.max(), cmap="inferno", vmin=0, vmax=0.25)
    axis.set_title(f"error of {title}")
for axis in axes.flat:
    axis.axis("off")
figure.colorbar(shown, ax=axes[1], shrink=0.8, label="error / brightest pixel")
figure.savefig(folder / "reconstruction.png")
plt.show()

# %% [markdown]
# So short a training of so small a network removes artefacts, above all around the head, and sharpens edges. Fine
# detail needs a larger network and more training.
#
# ## Scores
#
# fastMRI compares whole volumes by three scores: the normalised mean squared error (NMSE; lower is better), the peak
# signal-to-noise ratio (PSNR, in decibels; higher is better), and the structural similarity (SSIM; higher is better).
# MONAI's `SupervisedEvaluator` computes them, and `ReconstructionSaver` writes each volume as HDF5, NIfTI and a
# picture.


# %%
def score(network, name):
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=val_loader,
        network=network,
        prepare_batch=PrepareBatchKspace(),
        key_val_metric={"psnr": FastMRIMetricHandler("psnr")},
        additional_metrics={"ssim": FastMRIMetricHandler("ssim"), "nmse": FastMRIMetricHandler("nmse")},
        val_handlers=[ReconstructionSaver(folder / name, overwrite=True)],
    )
    evaluator.run()
    scores = evaluator.state.metrics
    print(f"{name:>12}: NMSE {scores['nmse']:.4f}   PSNR {scores['psnr']:.2f} dB   SSIM {scores['ssim']:.3f}")


score(ZeroFilled(), "zero_filled")
score(network, "i-rim")

# %%
for path in sorted((folder / "i-rim").iterdir()):
    print(path.relative_to(folder))

# %% [markdown]
# ## The same by one command: the bundle
#
# A MONAI **bundle** is a folder of configuration files that describe a training completely. Ours lies in
# `bundles/fastmri_irim_reconstruction`, next to the folder of this notebook. We take a copy, so that everything it
# writes stays with our other files.

# %%
here = Path(__file__).parent if "__file__" in globals() else Path.cwd()  # a notebook runs in its own folder
bundle = folder / "bundle"
shutil.copytree(here.parent / "bundles" / "fastmri_irim_reconstruction", bundle, dirs_exist_ok=True)

for path in sorted(bundle.glob("configs/*.json")):
    print(path.relative_to(folder))

# %% [markdown]
# `train.json` is the training of the paper. Further files change some of it: `small.json` makes the network small,
# `quick.json` shortens the training. Anything can be changed on the command line, too; we do so with the sizes, which
# must fit our small images. This is the command, as you would type it in a terminal, in the folder of the bundle:

# %%
configs = ["configs/train.json", "configs/small.json", "configs/quick.json"]
settings = {
    "config_file": configs,
    "logging_file": "configs/logging.conf",
    "dataset_dir": "../sample_data",
    "epochs": 1 if small else 4,
    "field_of_view": [size, size],
    "roi_size": [rows, size],
}

print("python -m monai.bundle run")
for name, value in settings.items():
    print(f'    --{name} "{value}"')

# %% [markdown]
# Here we run it from the notebook, and show the validation scores after each epoch.

# %%
command = [sys.executable, "-m", "monai.bundle", "run"]
for name, value in settings.items():
    command += [f"--{name}", str(value)]
run = subprocess.run(command, cwd=bundle, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
if run.returncode:
    raise RuntimeError(run.stdout)

for line in run.stdout.splitlines():
    if "Metrics --" in line:
        print(line.split(" - ")[-1])

# %% [markdown]
# The best network is in `models/model.pt`. From Python, the configuration builds the network, and the file has its
# weights.

# %%
parser = ConfigParser()
parser.read_config([bundle / name for name in configs])
trained = parser.get_parsed_content("network_def")
trained.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))

score(trained.to(device), "bundle")

# %% [markdown]
# It is the same kind of network as ours above, trained for a shorter time.
#
# ## Where to go from here
#
# - **The paper's training**, on fastMRI and a graphics card: leave out `small.json` and `quick.json`, and let
#   `dataset_dir` be the folder of your download.
# - **Volumes** instead of slices: add `configs/volume.json` after `configs/train.json`.
# - **Baselines** on the same data and with the same scores: `configs/rim.json` (the RIM, which is not invertible),
#   `configs/unet.json` (fastMRI's U-Net).
# - **Scores and pictures** of a trained network: add `configs/evaluate.json` at the end of the list.
# - **New scans**, without a reference: `configs/inference.json`.
