# %% [markdown]
# # Drawing brains: a diffusion model in 3D
#
# A **diffusion model** learns to remove noise from images. Given nothing but noise, it draws new images. In 3D its
# training runs out of memory early: the network works on every voxel, and all its activations are kept for the backward
# pass. So volumes are often cut into patches, or squeezed into a smaller space first.
#
# The **invertible diffusion model** ([2025, arXiv 2504.10883](https://arxiv.org/abs/2504.10883)) computes its
# activations back instead of keeping them ([Why invert?](why_invert.ipynb) explains how). In this notebook we
#
# 1. see what a diffusion model learns, in one picture,
# 2. take the network apart, and compare its memory with that of MONAI's `DiffusionModelUNet`,
# 3. train it with MONAI's trainer, schedulers and `DiffusionInferer`, which take it as it is,
# 4. draw brains, and look at them critically,
# 5. run it backwards.
#
# Nothing is downloaded, and no graphics card is needed.
#
# **The images are simulated** from one template of the human head, and their voxels are six times as long as those of
# real scans. They show that everything works. Nothing here is for clinical use.

# %% [markdown]
# ## Setup
#
# Everything is written to `folder`: a temporary one, unless the environment variable `MONAI_DATA_DIRECTORY` names
# another. With `MONAI_INVERTIBLE_TUTORIAL=small` everything runs at a toy size, for automatic tests.

# %%
import os
import tempfile
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.engines.utils import DiffusionPrepareBatch
from monai.handlers import LrScheduleHandler
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from monai.transforms import (
    Compose,
    CropForegroundd,
    Orientationd,
    RandFlipd,
    ResizeWithPadOrCropd,
    ScaleIntensityRangePercentilesd,
    Spacingd,
)
from monai.utils import set_determinism

from monai_invertible.data import brats_datalist, write_brats_sample
from monai_invertible.memory import estimate_training_step
from monai_invertible.networks import CheckerboardAttention, CheckpointedDiffusionUNet, InvertibleDiffusionUNet
from monai_invertible.numerics import inversion_error
from monai_invertible.transforms import LoadSubjectd

small = os.environ.get("MONAI_INVERTIBLE_TUTORIAL") == "small"
folder = Path(os.environ.get("MONAI_DATA_DIRECTORY") or tempfile.mkdtemp(), "brain_diffusion")
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})

# %% [markdown]
# ## Images
#
# `write_brats_sample` writes scans in the format of [BraTS 2020](https://www.med.upenn.edu/cbica/brats2020): heads
# without their skulls, with simulated tumours. If you have BraTS, leave this cell out and let `data` be its folder. We
# take one contrast, T1, and keep two subjects apart.

# %%
data = folder / "sample_data"
write_brats_sample(data, subjects=4 if small else 12, size=32 if small else 40, overwrite=True)

folds = 2 if small else 6
train_items = brats_datalist(data, "training", folds=folds, labels=False, modalities=["t1"])
test_items = brats_datalist(data, "validation", folds=folds, labels=False, modalities=["t1"])
print(f"{len(train_items)} subjects for training, {len(test_items)} kept apart")

# %% [markdown]
# MONAI's transforms bring every volume to one orientation, one voxel size, one range of grey values, -1 for black to 1
# for white, and one size: a cube around the brain.

# %%
edge, voxel = (16, 12.0) if small else (32, 6.0)  # of the cube in voxels; in mm

read = Compose(
    [
        LoadSubjectd("image"),
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=[voxel] * 3),
        ScaleIntensityRangePercentilesd("image", lower=0.1, upper=99.9, b_min=-1.0, b_max=1.0, clip=True),
        CropForegroundd("image", source_key="image", select_fn=lambda x: x > -1),
        ResizeWithPadOrCropd("image", [edge] * 3, value=-1.0),
    ]
)
train_subjects = CacheDataset(train_items, read, progress=False)
test_subjects = CacheDataset(test_items, read, progress=False)


def stack(subjects):
    return torch.stack([item["image"].as_tensor() for item in subjects])


train_volumes, test_volumes = stack(train_subjects), stack(test_subjects)
print(f"{tuple(train_volumes.shape)}: subjects, channels, and three axes of {edge} voxels of {voxel:.0f} mm")

# %% [markdown]
# ## What a diffusion model learns
#
# Take an image $x_0$ and noise $\varepsilon$ of the same size, one random number for each voxel, and mix them:
#
# $$x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1 - \bar\alpha_t}\;\varepsilon$$
#
# At time $t = 0$ the mixture is almost the image, and towards $t = 999$ almost the noise. `DDPMScheduler` holds the
# weights $\bar\alpha_t$.
#
# **A network is given the mixture and the time, and has to say what the noise was.** That is all. If it can, one
# knows the image too: solve the equation for $x_0$.
#
# There is one difficulty. At large $t$ the mixture *is* nearly the noise: a network that predicts the noise has to
# repeat its input to a part in a hundred before anything of the image is left in the difference. That takes a long
# training; after our few minutes it would draw noise. So we let it give the same answer in other words: it predicts
# the **image**, and the noise follows from it and the mixture:
#
# $$\varepsilon = \big(x_t - \sqrt{\bar\alpha_t}\;x_0\big) \,/\, \sqrt{1 - \bar\alpha_t}$$
#
# MONAI's schedulers do it when they are told `prediction_type="sample"`; `"epsilon"` is the noise. (Between the two
# there is `"v_prediction"`, the velocity, a mixture of noise and image, which the bundle's short training takes.)

# %%
schedule = {
    "num_train_timesteps": 1000,
    "schedule": "linear_beta",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "sample",
}
training_noise = DDPMScheduler(**schedule)

times = torch.tensor([50, 200, 400, 600, 900])
fixed = torch.Generator().manual_seed(0)
noise = torch.randn(test_volumes[:1].shape, generator=fixed)
noisy = training_noise.add_noise(test_volumes[:1].expand(5, -1, -1, -1, -1), noise.expand(5, -1, -1, -1, -1), times)


def axial(volume):
    """The middle slice, the patient's right on the left, as radiologists look."""
    return volume[0, :, :, edge // 2].flip(0).T.cpu()


def coronal(volume):
    return volume[0, :, edge // 2].flip(0).T.cpu()


def sagittal(volume):
    return volume[0, edge // 2].flip(0).T.cpu()


def show(axis, image, title="", limit=1):
    axis.imshow(image, cmap="gray", origin="lower", vmin=-limit, vmax=limit, interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.axis("off")


figure, axes = plt.subplots(1, 7, figsize=(11, 2.1), layout="constrained")
show(axes[0], axial(test_volumes[0]), "image $x_0$")
for axis, volume, time in zip(axes[1:], noisy, times, strict=False):
    show(axis, axial(volume), f"$x_t$, t = {time}", limit=2)
show(axes[6], axial(noise[0]), r"noise $\varepsilon$", limit=2)
figure.savefig(folder / "noise.png")
plt.show()

# %% [markdown]
# ## The network
#
# ```
# noisy image -> first end ->  c o r e  -> last end -> image (or noise)
#                  (half the    one invertible chain
#                 resolution)          ^
#                                time embedding
# ```
#
# The two **ends** are ordinary convolutions: they change resolution and number of channels and are not invertible.
# The **core** between them is one chain of invertible layers, in the form of a U-Net.

# %%
sizes = {"channels": (8, 16, 32) if small else (32, 64, 128), "strides": (2, 2)}


def build(backprop="invert"):
    set_determinism(0)
    network = InvertibleDiffusionUNet(spatial_dims=3, in_channels=1, out_channels=1, **sizes, backprop=backprop)
    return network.to(device)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


network = build()
print(f"{count(network):,} parameters, {count(network.core):,} of them in the core\n")
for part, layers in zip(("encoder", "decoder"), network.core, strict=True):
    print(f"{part}:", ", ".join(type(layer).__name__ for layer in layers))

# %% [markdown]
# - `ChannelSplit` leaves some of the channels behind: the skip connection of the U-Net. `OrthogonalDownsample` takes
#   the others to half the resolution and eight times the channels: as many numbers as before, so nothing is lost, and
#   the inverse of it (`Inverse`) brings them back in the decoder.
# - `AdditiveCoupling` does the work: half of the channels is moved by what convolutions make of the other half.
# - `CheckerboardAttention` mixes the channels of a skip, at every second voxel. *How* they are mixed is computed from
#   the voxels between them, which stay as they are; so the inverse can compute it again. The next one takes the other
#   colour of the board.

# %%
board = torch.rand(1, 16, 8, 8, 8)
first, second = CheckerboardAttention(16, parity=0), CheckerboardAttention(16, parity=1)
with torch.no_grad():
    changed = [(y != board).float().mean() for y in (first(board), second(first(board)))]
print(f"changed by one module: {changed[0]:.0%} of the voxels; by both: {changed[1]:.0%}")
print(f"error of the inverse of one: {inversion_error(first, board):.0e}")

# %% [markdown]
# What about the **time**? The network must know it, for at $t = 900$ nearly all is noise and at $t = 50$ hardly
# anything. The number becomes a vector, the time embedding, which every coupling adds to the input of its convolutions.
# It is *context*: each layer may read it, gradients flow into it, and nobody needs to invert it. Both directions must
# be given the same one. We shall see what happens otherwise.
#
# ## Memory
#
# What does a training step of one volume need? `estimate_training_step` carries it out on tensors that have a size but
# no numbers: **the table is simulated** (tensors only, with parameters, gradients and Adam's state), not measured on a
# graphics card. Beside our network stands MONAI's, with about as many parameters.
#
# One thing to know about `DiffusionModelUNet`: in the middle it lets each voxel attend to each other, whatever
# `attention_levels` says. With N voxels there this makes a matrix of N x N, which is huge in 3D. The option
# `use_flash_attention=True` computes the same without ever building that matrix: use it. It is in the table too, also
# together with checkpointing, the usual remedy for lack of memory (`CheckpointedDiffusionUNet`, the same network).

# %%
monai = {
    "channels": (8, 8, 16) if small else (16, 24, 32),
    "num_res_blocks": 2,
    "attention_levels": (False, False, False),
    "norm_num_groups": 8,
}
flash = {**monai, "use_flash_attention": True}
contenders = {
    "invertible, stored": partial(InvertibleDiffusionUNet, 3, 1, 1, **sizes, backprop="store"),
    "invertible, checkpointed": partial(InvertibleDiffusionUNet, 3, 1, 1, **sizes, backprop="checkpoint"),
    "invertible, inverted": partial(InvertibleDiffusionUNet, 3, 1, 1, **sizes),
    "MONAI's": partial(DiffusionModelUNet, 3, 1, 1, **monai),
    "MONAI's, flash attention": partial(DiffusionModelUNet, 3, 1, 1, **flash),
    "- and checkpointed": partial(CheckpointedDiffusionUNet, 3, 1, 1, **flash),
}
cubes = (16, 32) if small else (64, 128)
heads = "".join(f"{f'{n} x {n} x {n}: kept':>24}{'peak':>8}" for n in cubes)
print(f"{'GiB':>25}{'parameters':>12}{heads}")
peaks = {}
for name, contender in contenders.items():
    steps = [estimate_training_step(contender, [(1, 1, n, n, n), torch.tensor([500])]) for n in cubes]
    peaks[name] = steps[-1].peak
    numbers = "".join(f"{step.activations / 2**30:24.3f}{step.peak / 2**30:8.3f}" for step in steps)
    print(f"{name:>25}{steps[0].parameters // 4:12,}{numbers}")


def share(name, other):
    return f"{name} needs {peaks[name] / peaks[other]:.0%} of {other}"


print(f"\nAt {cubes[-1]} x {cubes[-1]} x {cubes[-1]}: {share('invertible, inverted', 'invertible, stored')},")
print(f"{share('invertible, inverted', 'invertible, checkpointed')}.")

# %% [markdown]
# How to read it:
#
# - **What inversion saves** is the difference between the first three rows: the same network, the same results.
# - The difference to MONAI's network has other reasons too. It works at full resolution, whereas our first end halves
#   it at once. That makes it cheap even when stored; it also sees less detail.
# - Flash attention removes MONAI's largest tensor, and only then is the comparison a fair one.
#
# ## Training
#
# MONAI's own parts do it: `DiffusionPrepareBatch` draws noise and times, `DiffusionInferer` mixes and asks the network,
# and the loss is the mean square error of the prediction. Two lines say that the target is the image. The rate of
# learning falls to zero at the end, which calms the weights.
#
# First a check. Inversion is a way to save memory, and must not change the training. So we train two networks for a
# short while from the same seed, one with its activations stored, one with them inverted.

# %%
batch_size, epochs, passes = (2, 2, 2) if small else (4, 10, 20)
rate = 2e-3


class PrepareImage(DiffusionPrepareBatch):
    def get_target(self, images, noise, timesteps):
        return images


def train(network, epochs, total_epochs, log=False):
    """The losses of all steps."""
    set_determinism(1)
    volumes = Dataset(list(train_subjects) * passes, RandFlipd("image", prob=0.5, spatial_axis=0))
    loader = DataLoader(volumes, batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    steps = total_epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        inferer=DiffusionInferer(training_noise),
        prepare_batch=PrepareImage(num_train_timesteps=1000),
        train_handlers=[LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)],
    )
    losses = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def collect(engine):
        losses.append(engine.state.output[0]["loss"])

    @trainer.on(Events.EPOCH_COMPLETED)
    def report(engine):
        if log:
            mean = sum(losses[-len(loader) :]) / len(loader)
            print(f"epoch {engine.state.epoch:2d} of {epochs}: error of the image {mean:.4f}")

    trainer.run()
    return losses


# %%
short = 1  # epoch, of the whole training below
stored = train(build("store"), short, epochs)
inverted = train(build("invert"), short, epochs)
for step in (0, 9, 24, 49)[: 1 if small else None]:
    print(f"step {step + 1:2d}: stored {stored[step]:.6f}, inverted {inverted[step]:.6f}")
largest = max(abs(a - b) / a for a, b in zip(stored, inverted, strict=True))
print(f"largest difference of two losses: {largest:.0e} of their size")

# %% [markdown]
# Equal up to rounding. Now the whole training, inverted.

# %%
network = build()
losses = train(network, epochs, epochs, log=True)

# %%
width = max(1, len(losses) // 60)
means = torch.tensor(losses)[: len(losses) // width * width].reshape(-1, width).mean(1)

figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.plot(losses, color="#b8d8d4", linewidth=0.8, label="each step")
axis.plot((torch.arange(len(means)) + 0.5) * width, means, color="#00796b", label=f"mean of {width}")
axis.set(xlabel="step", ylabel="mean square error of the image", yscale="log")
axis.legend(frameon=False)
figure.savefig(folder / "loss.png")
plt.show()

# %% [markdown]
# The single steps jump, since each draws other times, and some are harder than others: the more noise, the less there
# is to see of the image.
#
# ## What it has learned
#
# A subject that it has never seen, with noise of different strength. Below each mixture is the image that the
# network sees in it. The errors are root mean squares; the noise itself has 1.

# %%
network.eval()
with torch.no_grad():
    estimates = network(noisy.to(device), times.to(device)).cpu()
kept = training_noise.alphas_cumprod[times].view(-1, 1, 1, 1, 1)
predicted_noise = (noisy - kept.sqrt() * estimates) / (1 - kept).sqrt()

for time, guess, estimate in zip(times, predicted_noise, estimates, strict=True):
    errors = [(a - b).square().mean().sqrt() for a, b in ((guess, noise[0]), (estimate, test_volumes[0]))]
    print(f"t = {time:3d}: error of the predicted noise {errors[0]:.3f}, of the image {errors[1]:.3f}")

figure, axes = plt.subplots(2, 6, figsize=(10, 3.7), layout="constrained")
for column, time, mixed, estimate in zip(axes.T[1:], times, noisy, estimates, strict=True):
    show(column[0], axial(mixed), f"$x_t$, t = {time}", limit=2)
    show(column[1], axial(estimate))
show(axes[0, 0], axial(test_volumes[0]), "image $x_0$")
axes[1, 0].axis("off")
axes[1, 0].text(0.5, 0.5, "estimate\nof $x_0$", ha="center", va="center")
figure.savefig(folder / "estimates.png")
plt.show()

# %% [markdown]
# The more noise, the less of this subject is left in the estimate: at $t = 900$ it shows what heads look like on
# average. But even with little noise it is smooth, without folds and with a mere shade of the tumour. A network at this
# stage knows shapes and no details yet. So the noise that follows is wrong at small $t$, where it is a small part of
# the mixture.
#
# ## From noise to heads
#
# To draw, begin with pure noise, predict, and take a *part* of the predicted noise away; then predict again, at the
# next time, from a mixture with a little less noise. `DDPMScheduler` goes back the 1000 steps of the training,
# `DDIMScheduler` takes larger ones: here 50.

# %%
drawn = 2 if small else 6
few_steps = DDIMScheduler(**schedule)
few_steps.set_timesteps(5 if small else 50)
start = torch.randn(drawn, *train_volumes.shape[1:], generator=fixed).to(device)

samples, on_the_way = DiffusionInferer(few_steps).sample(
    start, network, save_intermediates=True, intermediate_steps=1, verbose=False
)
samples = samples.cpu()

figure, axes = plt.subplots(1, 6, figsize=(10, 2), layout="constrained")
show(axes[0], axial(start[0]), "noise", limit=2)
for fifth, axis in enumerate(axes[1:], start=1):
    step = len(on_the_way) * fifth // 5
    show(axis, axial(on_the_way[step - 1][0]), f"after {step} steps", limit=2 if fifth < 5 else 1)
figure.savefig(folder / "sampling.png")
plt.show()

# %% [markdown]
# Every drawn volume is in 3D. Here are three slices of each, beside real ones (as real as simulated scans are).

# %%
shown = min(drawn, 4)
columns = {"drawn": samples[:shown], "of the training": train_volumes[:shown]}
figure, axes = plt.subplots(3, 2 * shown, figsize=(11, 4.5), layout="constrained")
for block, (title, volumes) in enumerate(columns.items()):
    for column, volume in enumerate(volumes):
        for row, plane in enumerate((axial, coronal, sagittal)):
            show(axes[row, block * shown + column], plane(volume), title if row == 0 else "")
figure.savefig(folder / "samples.png")
plt.show()


# %% [markdown]
# Are these *new* heads, or copies? For each one we look for the nearest volume of the training (or its mirror image),
# and compare the distance with those between the subjects themselves.


# %%
def distance(volume, others):
    """Root mean square difference to the nearest of the others."""
    mirrored = torch.cat([others, others.flip(2)])
    return (mirrored - volume).square().mean((1, 2, 3, 4)).sqrt().min()


def average(distances):
    return torch.stack(list(distances)).mean()


others = [torch.cat([train_volumes[:k], train_volumes[k + 1 :]]) for k in range(len(train_volumes))]
distances = {
    "a drawn head": average(distance(volume, train_volumes) for volume in samples),
    "an unseen subject": average(distance(volume, train_volumes) for volume in test_volumes),
    "one of the training": average(map(distance, train_volumes, others)),
}
for name, value in distances.items():
    print(f"from {name:>19} to the nearest (other) one of the training: {value:.3f}")

# %% [markdown]
# **What they are:** heads, without doubt, in all three planes, and no two alike in outline. Hemispheres, brain stem and
# cerebellum are in their places. But they are smooth: no folds, hardly any ventricles, and no tumours, though every
# subject of the training has one. That is what a network draws that has trained for minutes: the part of the images
# that is common to all.
#
# The distances say the same. Drawn heads are *nearer* to the training than unseen subjects are, and yet they are no
# copies: something smooth is near to everything. In a long training on few subjects, look again: then a small distance
# does mean a copy, and that would be a patient's image.
#
# ## Backwards
#
# In training, the core has computed its activations back from its output in every step. Let us do that by hand. The
# first end turns a noisy volume into the input of the core, two tensors; the core runs forwards, and backwards.

# %%
mixed, time = noisy[1:2].to(device), times[1:2].to(device)
with torch.no_grad():
    state = network.ends.lift(mixed)
    embedding = network.embed(mixed, time)
    output = network.core(*state, embedding=embedding)
    back = network.core.inverse(*output, embedding=embedding)


def relative(tensors, others):
    """Difference of two states, relative to the size of the second."""
    differences = [(a - b).square().sum() for a, b in zip(tensors, others, strict=True)]
    return float(sum(differences) / sum(b.square().sum() for b in others)) ** 0.5


print(f"the core has changed its input by      {relative(output, state):.2f} of its size")
print(f"the inverse brings it back but for     {relative(back, state):.0e}")

# %% [markdown]
# And with the embedding of another time? Then each coupling takes away something else than what it added.

# %%
with torch.no_grad():
    other = network.embed(mixed, times[-1:].to(device))
    wrong = network.core.inverse(*output, embedding=other)

print(
    f"with the embedding of t = {times[-1]} instead of t = {time.item()}: {relative(wrong, state):.2f} from its input"
)

figure, axes = plt.subplots(1, 4, figsize=(8.5, 2.4), layout="constrained")
titles = ("input of the core", "its output", "back, same time", "back, other time")
for axis, title, tensors in zip(axes, titles, (state, output, back, wrong), strict=True):
    feature = tensors[0][0, 0, :, :, tensors[0].shape[-1] // 2].flip(0).T.cpu()
    axis.imshow(feature, cmap="gray", origin="lower", interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.axis("off")
figure.savefig(folder / "inverse.png")
plt.show()

# %% [markdown]
# The picture shows one of the channels.
#
# The whole network has no inverse: its ends have lost something on the way. So the prediction does not tell the
# volume that it came from. (Can inversion tell real volumes from drawn ones? We tried:
# [benchmark](../benchmarks/results/real_or_generated.md).)
#
# ## What we have seen, and what not
#
# - MONAI's parts train and sample the network without a change, and inversion changes the losses by rounding alone.
# - **Memory:** the table is a simulation. Inverting saves what the first three rows say. MONAI's network, which works
#   at full resolution, needs much more, and much less with flash attention than without.
# - **Images:** heads that are recognised at once and have no details: a few minutes of training at 32 x 32 x 32, of
#   simulated subjects from one template. This compares no methods and says nothing about real scans.
# - We have let the network predict the image, since the usual prediction of the noise needs a longer training. That has
#   nothing to do with inversion.
#
# The bundle [brats_idm_generation](../bundles/brats_idm_generation/docs/README.md) is the complete training: BraTS at
# 128 x 128 x 128 or whole volumes, one contrast from another, patches with coordinates, averaged weights.
# [Diffusion](../docs/diffusion.md) compares networks on the sample set, and
# [memory](../benchmarks/results/idm_memory.md) at full size.
