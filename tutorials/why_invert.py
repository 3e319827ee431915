# %% [markdown]
# # Why invert?
#
# To train a network, the computer must remember every intermediate result ("activation") of the forward pass until the
# backward pass has used it. A network that is twice as deep needs twice the memory. This, more than computing time, is
# what keeps 3D networks small.
#
# An **invertible** network need not remember. When the input of each layer can be computed from its output, the
# backward pass walks from the last layer to the first and finds every activation again on its way. Only the output of
# the last layer is kept.
#
# In this notebook we
#
# 1. train one network twice, once stored and once inverted, and see that nothing changes,
# 2. measure what it costs in time and what it saves in memory,
# 3. put an arbitrary network into an invertible layer,
# 4. write an invertible layer of our own, and test it in two lines.
#
# Nothing is downloaded, and no graphics card is needed.

# %% [markdown]
# ## Setup
#
# Figures are saved in `folder`: a temporary one, unless the environment variable `MONAI_DATA_DIRECTORY` names another.
# With `MONAI_INVERTIBLE_TUTORIAL=small` everything runs at a toy size, for automatic tests.

# %%
import os
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.networks.blocks import Convolution, ResidualUnit
from monai.utils import set_determinism
from torch import nn

from monai_invertible import InvertibleModule, InvertibleSequential, set_backprop, set_drift_guard
from monai_invertible.data import random_brain_slices
from monai_invertible.memory import LiveBytes, estimate_training_step
from monai_invertible.networks import AdditiveCoupling
from monai_invertible.numerics import gradient_error, inversion_error

small = os.environ.get("MONAI_INVERTIBLE_TUTORIAL") == "small"
folder = Path(os.environ.get("MONAI_DATA_DIRECTORY") or tempfile.mkdtemp(), "why_invert")
folder.mkdir(parents=True, exist_ok=True)

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})
colours = {"store": "#777777", "checkpoint": "#c98500", "invert": "#00796b"}
names = {"store": "stored", "checkpoint": "checkpointed", "invert": "inverted"}

# %% [markdown]
# ## The trick
#
# Split the channels of an image in two halves, $x_1$ and $x_2$. Let any small network $F$ look at one half, and add its
# answer to the other half; then do the same the other way round with $G$:
#
# $$y_1 = x_1 + F(x_2), \qquad y_2 = x_2 + G(y_1)$$
#
# This is an **additive coupling**. However complicated $F$ and $G$ are, it is undone by two subtractions:
#
# $$x_2 = y_2 - G(y_1), \qquad x_1 = y_1 - F(x_2)$$
#
# $F$ and $G$ themselves need not be invertible. Here both are a block of MONAI: a
# convolution with normalisation (which makes a bias useless) and activation.


# %%
def coupling(channels, spatial_dims=2):
    half = channels // 2
    f, g = (Convolution(spatial_dims, half, half, adn_ordering="NA", act="GELU", bias=False) for _ in range(2))
    return AdditiveCoupling(f, g)


set_determinism(0)
layer = coupling(channels=16)
x = torch.randn(1, 16, 32, 32)
with torch.no_grad():
    y = layer(x)
    x_again = layer.inverse(y)

print(f"the layer moves its input by up to {(y - x).abs().max():.2f},")
print(f"and its inverse returns to it within {(x_again - x).abs().max():.1e} (rounding of 32-bit numbers)")

# %% [markdown]
# ## A network
#
# `InvertibleSequential` is a chain of invertible layers. It is where memory is saved. What is not invertible, such as
# the convolutions that change the number of channels at both ends, stays outside the chain, as in any other network.
#
# `backprop` says how the chain's activations come back in the backward pass:
#
# - `"store"`: they are kept, as PyTorch always does,
# - `"invert"`: they are computed from the output of the chain,
# - `"checkpoint"`: the input of every layer is kept, the rest is computed again
#   ([`torch.utils.checkpoint`](https://docs.pytorch.org/docs/stable/checkpoint.html)).


# %%
def make_network(depth, backprop, channels=32, spatial_dims=2):
    first = Convolution(spatial_dims, 1, channels, conv_only=True)
    chain = InvertibleSequential(*[coupling(channels, spatial_dims) for _ in range(depth)], backprop=backprop)
    last = Convolution(spatial_dims, channels, 1, conv_only=True)
    return nn.Sequential(first, chain, last)


# %% [markdown]
# ## The same training, twice
#
# The task is to remove noise from brain MRI. The images are randomly deformed slices of the MNI152 template, which
# comes with the package nilearn.

# %%
size = 32 if small else 64  # pixels
rng = np.random.default_rng(0)
slices = random_brain_slices("t1", (8, size, size), pixel=192 / size, slice_gap=5.0, rng=rng)
clean = torch.from_numpy(slices.astype(np.float32))[:, None]
noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

# %% [markdown]
# One function trains a network. The seed fixes the starting weights and the order of the images, so two runs differ in
# `backprop` and in nothing else.


# %%
depth = 4 if small else 10


def train(backprop, dtype=torch.float32, iterations=4 if small else 80):
    set_determinism(0)
    network = make_network(depth, backprop).to(dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(iterations):
        batch = torch.randint(len(clean), (2,))
        loss = nn.functional.mse_loss(network(noisy[batch].to(dtype)), clean[batch].to(dtype))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network, np.array(losses)


stored_network, stored_losses = train("store")
network, losses = train("invert")
difference = np.abs(losses - stored_losses) / stored_losses

print(f"last loss, stored:   {stored_losses[-1]:.5f}")
print(f"last loss, inverted: {losses[-1]:.5f}")
print(f"largest relative difference of the losses: {difference.max():.1e}")

# %% [markdown]
# Is the difference a small error, or only rounding? The inverse gives back every activation except for its last digits.
# If that is all, the difference must almost vanish when we calculate with 64-bit numbers, which have more of them.

# %%
_, stored_losses_64 = train("store", torch.float64)
_, losses_64 = train("invert", torch.float64)
difference_64 = np.abs(losses_64 - stored_losses_64) / stored_losses_64

print(f"largest relative difference with 64-bit numbers: {difference_64.max():.1e}")

# %% [markdown]
# On the left the curves lie on top of each other; on the right, their differences (a gap where there is none).

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(stored_losses, color=colours["store"], linewidth=5, alpha=0.5, label="stored")
left.plot(losses, color=colours["invert"], linewidth=1.5, label="inverted")
left.set(xlabel="iteration", ylabel="loss", yscale="log", title="Loss")
left.legend(frameon=False)
right.plot(np.where(difference > 0, difference, np.nan), color="black", linewidth=1.5, label="32-bit numbers")
right.plot(
    np.where(difference_64 > 0, difference_64, np.nan),
    color="black",
    linewidth=1.5,
    linestyle=":",
    label="64-bit numbers",
)
right.set(xlabel="iteration", yscale="log", ylim=(1e-17, 1), title="Relative difference of the two losses")
right.legend(frameon=False, loc="upper right")
figure.savefig(folder / "loss.png")
plt.show()

# %% [markdown]
# What the inverted network has learned:

# %%
with torch.no_grad():
    denoised = network(noisy[:1])

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, (title, image) in zip(axes, {"noisy": noisy, "denoised": denoised, "clean": clean}.items(), strict=True):
    axis.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(title)
    axis.axis("off")
figure.savefig(folder / "denoised.png")
plt.show()

# %% [markdown]
# ## The price: time
#
# The network is evaluated once more in the backward pass, exactly as often as with checkpointing. We take turns, and
# show the fastest of several steps, which other programs have disturbed least.


# %%
def training_step(network):
    network.zero_grad()
    loss = nn.functional.mse_loss(network(noisy), clean)
    loss.backward()


networks = {mode: make_network(depth, mode) for mode in names}
seconds = {mode: [] for mode in names}
for _ in range(3 if small else 10):
    for mode in names:
        start = time.perf_counter()
        training_step(networks[mode])
        seconds[mode].append(time.perf_counter() - start)

for mode in names:
    fastest = min(seconds[mode])
    print(f"{names[mode]:>12}: {1000 * fastest:6.1f} ms a step, {fastest / min(seconds['store']):.2f} x stored")

# %% [markdown]
# ## The gain: memory
#
# `LiveBytes` counts the bytes of all tensors that are alive, at every operation of forward and backward. We look at one
# training step of the same three networks.

# %%
peak = {}
for mode in names:
    with LiveBytes() as live:
        training_step(networks[mode])
    peak[mode] = live.peak
    print(f"{names[mode]:>12}: {live.peak / 2**20:5.1f} MiB at the peak of a step")
print(f"stored needs {peak['store'] / peak['invert']:.1f} x the memory of inverted")

# %% [markdown]
# ### A network that does not fit on this computer
#
# `estimate_training_step` carries out a training step on tensors without numbers: they have a size, but take no
# memory. This way we learn what a 3D network would need before we have a machine for it. These are tensors only; a
# graphics card needs some more for its own work.

# %%
side = 32 if small else 128
shape = (1, 1, side, side, side)  # batch, channels, and the three dimensions of a volume
for mode in ("store", "invert"):
    report = estimate_training_step(lambda mode=mode: make_network(20, mode, spatial_dims=3), shape)
    print(f"{names[mode].upper()}\n{report}\n")

# %% [markdown]
# Now for different depths. The memory of the inverted network is a flat line: a deeper network costs time, but no
# memory.

# %%
depths = [2, 4] if small else [2, 5, 10, 20, 40]
memory = {
    mode: [
        estimate_training_step(lambda n=n, mode=mode: make_network(n, mode, spatial_dims=3), shape).peak / 2**30
        for n in depths
    ]
    for mode in names
}

# %%
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for mode, values in memory.items():
    axis.plot(depths, values, marker="o", markersize=4, linewidth=2, color=colours[mode])
    label = f"{names[mode]}, {values[-1]:.1f} GiB"
    axis.annotate(label, (depths[-1], values[-1]), (8, 0), textcoords="offset points", color=colours[mode], va="center")
axis.set(xlabel="couplings in the chain", ylabel="peak of a training step, GiB", ylim=(0, None))
axis.set_xlim(0, 1.35 * depths[-1])
axis.set_xticks(depths)
axis.set_title(f"One image of {side} x {side} x {side} voxels, 32 channels (simulated)", loc="left", fontsize=11)
axis.grid(axis="y", color="#e6e6e6")
figure.savefig(folder / "memory_against_depth.png")
plt.show()

# %% [markdown]
# ## Switching a network that exists already
#
# `set_backprop` switches a network to another mode, in place. Parameters, files of weights and results stay the same:
# a network that was trained inverted can be loaded into a stored one, and the other way round.

# %%
stored = set_backprop(make_network(depth, "invert"), "store")
stored.load_state_dict(network.state_dict())

with torch.no_grad():
    print("largest difference of the results:", (stored(noisy[:1]) - network(noisy[:1])).abs().max().item())


# %% [markdown]
# `gradient_error` compares the gradients of two networks with the same weights. It is the honest test of everything
# above:


# %%
def mean_square(network):
    return nn.functional.mse_loss(network(noisy[:2]), clean[:2])


print(f"largest relative difference of a gradient: {gradient_error(network, stored, mean_square):.1e}")

# %% [markdown]
# ## A coupling with any branch
#
# A branch can be any network whose output has the shape of its input. Here is one of MONAI's residual units, with batch
# normalisation and dropout: the random numbers of the dropout are repeated exactly in the backward pass, and batch
# statistics are updated once.


# %%
def residual_coupling(channels=32):
    half = channels // 2
    branch = ResidualUnit(2, half, half, subunits=2, norm="batch", dropout=0.1)
    return AdditiveCoupling(branch, nn.Conv2d(half, half, 3, padding=1))


chain = InvertibleSequential(*[residual_coupling() for _ in range(4)])
features = torch.randn(2, 32, 16, 16)


# %%
def mean_square_of_features(chain):
    torch.manual_seed(0)  # the same dropout for both networks
    return chain(features).square().mean()


stored_chain = set_backprop(InvertibleSequential(*[residual_coupling() for _ in range(4)]), "store")
stored_chain.load_state_dict(chain.state_dict())
error = gradient_error(chain, stored_chain, mean_square_of_features)
print(f"gradients, with dropout and batch normalisation: {error:.1e}")

# %% [markdown]
# ## Your own invertible layer
#
# Write the two directions, `forward` and `inverse`, as ordinary PyTorch. There is no backward pass to write. This layer
# stretches and shifts every channel:
#
# $$y = e^{a} x + b, \qquad x = e^{-a} (y - b)$$


# %%
class StretchAndShift(InvertibleModule):
    def __init__(self, channels):
        super().__init__()
        self.a = nn.Parameter(0.1 * torch.randn(1, channels, 1, 1))
        self.b = nn.Parameter(0.1 * torch.randn(1, channels, 1, 1))

    def forward(self, x, **context):
        return x * self.a.exp() + self.b

    def inverse(self, y, **context):
        return (y - self.b) * (-self.a).exp()


# %% [markdown]
# `**context` is what a layer may read without inverting it, for example measured data or the time in a diffusion model.
# This one needs nothing of the kind.
#
# Two lines test it: does the inverse return to the input, and are the gradients those of the stored network?


# %%
def make_chain(layer_class, backprop):
    set_determinism(0)
    layers = [module for _ in range(4) for module in (layer_class(32), coupling(32))]
    return InvertibleSequential(*layers, backprop=backprop)


def check(layer_class):
    chain, stored_chain = make_chain(layer_class, "invert"), make_chain(layer_class, "store")
    set_drift_guard(chain, warn_above=None, raise_above=None)  # which would stop the second of these checks
    print(f"{layer_class.__name__}: inverse  {inversion_error(chain, features):.1e}")
    print(f"{layer_class.__name__}: gradient {gradient_error(chain, stored_chain, mean_square_of_features):.1e}")


check(StretchAndShift)

# %% [markdown]
# A mistake shows at once. Here somebody forgot the sign in the inverse:


# %%
class WrongInverse(StretchAndShift):
    def inverse(self, y, **context):
        return (y - self.b) * self.a.exp()


check(WrongInverse)

# %% [markdown]
# Such a layer trains badly: its gradients are computed at wrong activations. An error as large as this one would stop
# the training with a message, for every chain compares its input with what it computed back; we switched
# that off. A smaller mistake may pass. So never skip the two lines.
#
# ## When it pays
#
# - **Deep chains on large images.** The memory of the chain does not depend on its depth. What lies outside the chain
#   (first and last layers, loss, the data) needs what it always needs.
# - **The number of channels and the size of the image stay the same** along these chains. Layers that change either,
#   such as the first and the last convolution here, stand between chains.
# - **Time for memory.** If the stored network fits and you are in a hurry, switch to `"store"`: the weights are the
#   same.
#
# Next: [Reconstructing accelerated MRI with i-RIM](accelerated_mri_reconstruction.ipynb), an invertible network with
# the physics of the scanner inside.
