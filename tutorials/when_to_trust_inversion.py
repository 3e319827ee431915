# %% [markdown]
# # When to trust inversion
#
# An invertible network keeps no activations: in the backward pass it computes each one back from the next. Computers
# calculate with rounded numbers, so what comes back is not quite what went in, and the gradients are as wrong as the
# activations that they are taken at. Mostly the difference is a millionth. With some layers it is everything, and
# nothing tells: the network trains, only badly.
#
# In this notebook we
#
# 1. see which layers lose precision on the way back, and how much,
# 2. ask of a network, in one line, whether inversion is safe, and which layer it is that harms,
# 3. watch what happens to a training when it is not, and who warns,
# 4. repair the network, four ways.
#
# Nothing is downloaded, and no graphics card is needed. The idea of layer-wise invertible networks, of their hybrid
# with couplings, and of judging both by the ratio of signal to noise, is from
# [Hascoet et al., 2019](https://arxiv.org/abs/1910.11127).

# %% [markdown]
# ## Setup
#
# Figures are saved in `folder`: a temporary one, unless the environment variable `MONAI_DATA_DIRECTORY` names another.
# With `MONAI_INVERTIBLE_TUTORIAL=small` everything runs at a toy size, for automatic tests.

# %%
import copy
import os
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.networks.blocks import Convolution
from monai.utils import set_determinism
from torch import nn

from monai_invertible import InvertibleSequential, read_drift, set_backprop, set_drift_guard
from monai_invertible.data import random_brain_slices
from monai_invertible.networks import (
    AdditiveCoupling,
    FullyInvertibleUNet,
    InvertibleBatchNorm,
    InvertibleConvolution,
    InvertibleLeakyReLU,
    LayerwiseBranch,
)
from monai_invertible.numerics import PRECISIONS, leaky_relu_alpha, measure_alpha, reconstruction_snr

small = os.environ.get("MONAI_INVERTIBLE_TUTORIAL") == "small"
folder = Path(os.environ.get("MONAI_DATA_DIRECTORY") or tempfile.mkdtemp(), "when_to_trust_inversion")
folder.mkdir(parents=True, exist_ok=True)

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})

# %% [markdown]
# ## One layer
#
# A leaky ReLU with slope 0.2 multiplies negative values by 0.2; its inverse divides them by 0.2, and their errors with
# them. The errors of positive values stay as they are. So the errors grow, and the signal does not.
#
# The **signal-to-noise ratio** compares the two: the mean square of an activation over that of its error. It is given
# in decibels: 20 dB are an error of 10 %, 40 dB of 1 %, 120 dB of a millionth. `measure_alpha` adds a little noise to
# the output of a layer, inverts it, and says by which factor the ratio has changed; for normally distributed values
# there is a formula.

# %%
set_determinism(0)
values = torch.randn(1000, 100, dtype=torch.float64)


def decibels(alpha):
    return 10 * np.log10(alpha)


slopes = [0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]
measured = [decibels(measure_alpha(InvertibleLeakyReLU(slope), values)) for slope in slopes]
print(f"slope 0.2: {measured[slopes.index(0.2)]:.1f} dB")

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
curve = np.geomspace(0.01, 1, 100)
axis.plot(curve, [decibels(leaky_relu_alpha(slope)) for slope in curve], color="#00796b", label="formula")
axis.plot(slopes, measured, "o", color="#c98500", label="measured")
axis.set(xlabel="slope of a leaky ReLU", xscale="log", ylabel="change in the inverse, dB")
axis.legend(frameon=False)
figure.savefig(folder / "one_layer.png")
plt.show()

# %% [markdown]
# Batch normalisation multiplies each channel by a weight that is learned. A channel with a small weight is the negative
# side of the leaky ReLU once more. `InvertibleBatchNorm` has a bound for it: with `invertible_eps=0.1`, its default, no
# channel is ever multiplied by less than 0.1. Here one weight of 100 became nearly zero:

# %%
for eps in (0.0, 0.01, 0.1):
    norm = InvertibleBatchNorm(100, invertible_eps=eps).double()
    norm.weight.data[0] = 1e-4
    print(f"invertible_eps {eps:4}: {decibels(measure_alpha(norm, values)):6.1f} dB")

# %% [markdown]
# ## Two networks
#
# Both remove noise from brain MRI, and both are made of the same units of convolution, batch normalisation and leaky
# ReLU, all of them invertible:
#
# - the **layer-wise** network inverts one unit after the other,
# - the **hybrid** puts short chains of them into couplings. A coupling is inverted by a subtraction, whatever its
#   branches are: they need to be walked back only within themselves.


# %%
channels = 16


class Denoiser(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.first = Convolution(2, 1, channels, conv_only=True)
        self.chain = InvertibleSequential(*layers)
        self.last = Convolution(2, channels, 1, conv_only=True)

    def forward(self, x):
        state = self.chain(self.first(x))
        features = state[-1] if isinstance(state, tuple) else state  # before it: the statistics of the normalisations
        return x + self.last(features)


def unit(slope):
    return InvertibleConvolution(2, channels), InvertibleBatchNorm(channels), InvertibleLeakyReLU(slope)


def make_layerwise(units, slope=0.2):
    set_determinism(0)
    return Denoiser(*[layer for _ in range(units) for layer in unit(slope)])


def make_hybrid(units, slope=0.2):
    """Couplings of two branches with two units each."""

    def branch():
        return LayerwiseBranch(2, channels // 2, units=2, negative_slope=slope)

    set_determinism(0)
    return Denoiser(*[AdditiveCoupling(branch(), branch()) for _ in range(units // 4)])


# %%
size = 32 if small else 64  # pixels
rng = np.random.default_rng(0)
slices = random_brain_slices("t1", (8, size, size), pixel=192 / size, slice_gap=5.0, rng=rng)
clean = torch.from_numpy(slices.astype(np.float32))[:, None]
noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def loss_of(network):
    return nn.functional.mse_loss(network(noisy), clean)


# %% [markdown]
# ## One line
#
# `reconstruction_snr` takes a network and a function that runs it and returns the loss. It makes one training step on a
# copy and compares every activation that is computed back with the one that was there.

# %%
units = 12
report = reconstruction_snr(make_layerwise(units), loss_of)
print(report)

# %% [markdown]
# The way back goes from right to left. Each leaky ReLU takes its share; after the twelfth, nothing of the signal is
# left.

# %%
report.draw(folder / "layerwise.png")

# %% [markdown]
# The hybrid, of as many units:

# %%
report = reconstruction_snr(make_hybrid(units), loss_of)
print(report)
report.draw(folder / "hybrid.png")

# %% [markdown]
# Within its branches (thin lines) the hybrid loses as the layer-wise network does, but each branch begins anew: its
# loss is not handed on.
#
# **Your own network** is asked in the same way, whatever it is made of, if it has an `InvertibleSequential` somewhere.
# Networks of couplings alone are the safest; most networks of this package are. Here is one in 3D:

# %%
unet = FullyInvertibleUNet(3, 1, 3, channels=[8, 16], strides=[2])
volume = torch.randn(1, 1, 16, 16, 16)
print(reconstruction_snr(unet, lambda network: network(volume).square().mean()))

# %% [markdown]
# ## Who warns
#
# Nobody need remember to ask. Now and then in training, each chain keeps a few numbers of its input, and compares them
# when backward has come back to them: the **drift guard**. At an error of 1 % it warns, and at 10 % it stops the
# training, for such gradients are noise.

# %%
try:
    loss_of(make_layerwise(units)).backward()
except RuntimeError as error:
    print(textwrap.fill(str(error), 100))

# %% [markdown]
# What if nobody had stopped it? `set_drift_guard` moves the limits, here so far that nothing exceeds them. We train
# both networks, with stored activations and with inverted ones. The seed is the same, so the curves should be, too.


# %%
def train(network, backprop):
    network = set_drift_guard(set_backprop(copy.deepcopy(network), backprop), warn_above=None, raise_above=float("inf"))
    set_determinism(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(4 if small else 100):
        batch = torch.randint(len(clean), (2,))
        loss = nn.functional.mse_loss(network(noisy[batch]), clean[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network, losses


networks = {"layer-wise": make_layerwise(units), "hybrid": make_hybrid(units)}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
trained = {}
for axis, (name, network) in zip(axes, networks.items(), strict=True):
    for backprop, label, style in (
        ("store", "stored", {"color": "#777777", "linewidth": 5, "alpha": 0.5}),
        ("invert", "inverted", {"color": "#00796b", "linewidth": 1.5}),
    ):
        trained[name], losses = train(network, backprop)
        axis.plot(losses, label=label, **style)
        print(f"{name:>10}, {label:8}: mean of the last ten losses {np.mean(losses[-10:]):.5f}")
    axis.set(title=name, xlabel="iteration", yscale="log")
axes[0].set(ylabel="loss")
axes[0].legend(frameon=False)
figure.savefig(folder / "loss.png")
plt.show()

# %% [markdown]
# The layer-wise network goes on learning, which is the treacherous part: the layers near its end still have good
# gradients. It only learns less than it could. The hybrid gives the same curve both ways.
#
# `read_drift` tells the error that each chain measured last. In a MONAI trainer, `DriftHandler` of
# `monai_invertible.handlers` writes the largest into the log.

# %%
for name, network in trained.items():
    print(f"{name:>10}: {max(read_drift(network).values()):.1e}")

# %% [markdown]
# Weights change in training, and so does the loss of precision. A network that was safe before it may be asked again
# after some epochs:

# %%
for name, network in trained.items():
    before, after = (reconstruction_snr(n, loss_of).worst.decibels for n in (networks[name], network))
    print(f"{name:>10}: at least {before:6.1f} dB before training, {after:6.1f} dB after it")

# %% [markdown]
# ## Repairing it
#
# 1. **Couplings around short chains**, the hybrid above: the best answer for deep networks.
# 2. **A slope nearer to one.** It makes the network a little more linear, and much safer.
# 3. **Fewer layers in a chain.** Several chains, with something ordinary between them, each begin anew.
# 4. **`set_backprop(network, "checkpoint")`** keeps the input of each layer. More memory, no inverse.
#
# The first three in numbers:

# %%
depths = [4, 8] if small else [4, 8, 12, 16]
choices = {
    "layer-wise, slope 0.2": (make_layerwise, 0.2, "#c98500"),
    "layer-wise, slope 0.5": (make_layerwise, 0.5, "#5e4fa2"),
    "layer-wise, slope 0.8": (make_layerwise, 0.8, "#0072b2"),
    "hybrid, slope 0.2": (make_hybrid, 0.2, "#00796b"),
}
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for label, (make, slope, colour) in choices.items():
    lowest = [reconstruction_snr(make(depth, slope), loss_of).worst.decibels for depth in depths]
    axis.plot(depths, lowest, marker="o", markersize=4, linewidth=2, color=colour, label=label)
for limit, text in ((40, "the guard warns"), (20, "the guard stops")):
    axis.axhline(limit, color="#999999", linewidth=1, linestyle=":")
    axis.annotate(text, (depths[0], limit), (0, 2), textcoords="offset points", fontsize=8, color="#777777")
axis.set(xlabel="units in the network", ylabel="lowest signal to noise, dB", xticks=depths)
axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig(folder / "depth_and_slope.png")
plt.show()

# %% [markdown]
# ## Number formats
#
# More digits are a remedy as well, and fewer a danger. Graphics cards like to calculate with few: `tf32` and
# `bfloat16 autocast` round what is multiplied in the convolutions, while the activations stay 32-bit numbers; with
# `bfloat16` everything has 8 bits. `reconstruction_snr` tries each on a copy (`tf32` in software).

# %%
for precision in PRECISIONS:
    report = reconstruction_snr(make_hybrid(units), loss_of, precision=precision)
    print(f"{precision:>17}: at least {report.worst.decibels:6.1f} dB, {report.verdict}")

# %% [markdown]
# ## When to trust it
#
# - **Chains of couplings**: always, in 32-bit numbers, at any depth that you will train. In 16 bits, ask.
# - **Invertible leaky ReLUs and batch normalisations in a row**: a few of them, or inside couplings.
# - **A layer of your own**: ask `reconstruction_snr`. It finds a wrong inverse as well.
# - **After any change of slope, depth or number format**: ask again, and leave the drift guard on.
#
# The numbers for larger networks are in the [benchmark](../benchmarks/results/inversion_snr.md). If you began here,
# [Why invert?](why_invert.ipynb) tells what it is good for.
