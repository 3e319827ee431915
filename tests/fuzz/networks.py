"""Random networks: every public architecture with random small arguments, trained for two steps in a random mode."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd import BackpropSwitch
from monai_invertible.autograd.module import as_tuple
from monai_invertible.networks import nets
from tests.fuzz.choose import Choose, Replayed
from tests.fuzz.oracle import Results, Verdict, judge

__all__ = ["NETWORKS", "Network", "judge_network", "network_case"]


@dataclass
class Network:
    """A network, what it is called with, and how it is trained."""

    network: nn.Module
    inputs: list[tuple[int, ...]]
    context: dict[str, Any]  # shapes, or values
    story: str
    mode: str
    training: bool
    frozen: bool
    steps: int
    hook: bool
    kind: str
    seed: int


Build = Callable[[Choose], tuple[nn.Module, tuple[int, ...], dict[str, Any], str]]


def call(kind: type[nn.Module], *args: Any, **options: Any) -> tuple[nn.Module, str]:
    """The network, and the call that makes it."""
    named = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in options.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of widths that splits cannot have
        return kind(*args, **options), f"{kind.__name__}({', '.join(named)})"


def unet(kind: type[nn.Module]) -> Build:
    def build(choose: Choose) -> Any:
        dims, levels = choose.integer(1, 3), choose.integer(2, 3)
        inputs, outputs, batch = choose.integer(1, 2), choose.integer(1, 3), choose.integer(1, 2)
        size = tuple(choose.integer(4, 9 if dims < 3 else 5) for _ in range(dims))
        channels = tuple(choose.of([4, 6, 8]) * (1 if dims == 3 else 2**i) for i in range(levels))
        strides = tuple(choose.of([2, (1, 2, 2)[-dims:]]) for _ in range(levels - 1))
        plain = kind is nets.PlainUNet
        options: dict[str, Any] = {"dropout": 0.2 * choose.chance(40, "dropout")}
        options["norm"] = choose.of([("instance", {"affine": True}), "batch", ("group", {"num_groups": 1})])
        options["act"] = choose.of([("leakyrelu", {"negative_slope": 0.01}), "prelu", "swish"])
        if not plain:
            options["num_res_units"] = choose.integer(1, 2)
            options["branch"] = choose.of(["convolution", "layerwise"])
        if kind is nets.FullyInvertibleUNet:
            options["downsample"] = choose.of(["squeeze", "cayley", "matrix_exp", "householder"])
        if choose.chance(30, "vae"):
            options["vae_size"] = size
        return *call(kind, dims, inputs, outputs, channels, strides, **options), (batch, inputs, *size), {}

    return reordered(build)


def reordered(build: Callable[[Choose], Any]) -> Build:
    def made(choose: Choose) -> Any:
        network, story, shape, context = build(choose)
        return network, shape, context, story

    return made


def classifier(kind: type[nn.Module]) -> Build:
    def build(choose: Choose) -> Any:
        dims, inputs = choose.integer(1, 3), choose.integer(1, 3)
        options: dict[str, Any] = {"negative_slope": choose.of([0.2, 0.5])}
        stages = choose.integer(1, 2)
        options["blocks"] = tuple(choose.integer(1, 2) for _ in range(stages))
        if kind is nets.IRevNet:
            options["channels"] = choose.of([4, 8])
            options["pools"] = tuple(choose.of(["channel", "batch"]) for _ in range(stages - 1))
            options["branch"] = choose.of(["layerwise", "convolution", None])
            options["invertible_eps"] = choose.of([0.1, 0.3])
            if options["branch"] != "convolution":
                options["micro_batches"] = choose.of([1, 2, 3])
        else:
            options["channels"] = tuple(choose.of([4, 6]) for _ in range(stages))
        size = tuple(2 ** (stages - 1) * choose.integer(2, 3) for _ in range(dims))
        return *call(kind, dims, inputs, 3, **options), (choose.integer(3, 5), inputs, *size), {}

    return reordered(build)


def reconstruction(kind: type[nn.Module]) -> Build:
    def build(choose: Choose) -> Any:
        dims = 2 if kind is nets.MagnitudeUNet else choose.integer(2, 3)
        coils = choose.integer(1, 2)
        size = tuple(choose.integer(6, 9) for _ in range(2))
        shape = (choose.integer(1, 2), coils, *((3,) if dims == 3 else ()), *size, 2)
        context: dict[str, Any] = {"sensitivities": shape} if coils > 1 else {}
        if choose.below(2):
            context["mask"] = (1, 1, *((1,) if dims == 3 else ()), 1, size[-1], 1)
        if kind is nets.InvertibleRIM:
            count = choose.integer(1, 2)
            branch = choose.of(["convolution", "layerwise"])
            options: dict[str, Any] = {
                "channels": choose.of([4, 6, 8]),
                "hidden_channels": choose.integer(2, 4),
                "downsample": tuple(choose.integer(1, 2) for _ in range(count)),
                "initial": choose.of(["zeros", "zero_filled"]),
                "branch": branch,
            }
            return *call(kind, dims, choose.integer(1, 3), **options), shape, context
        if kind is nets.RecurrentInferenceMachine:
            return *call(kind, dims, choose.integer(1, 2), channels=choose.integer(2, 4)), shape, context
        if kind is nets.MagnitudeUNet:
            p = 0.2 * choose.chance(40, "dropout")
            return *call(kind, choose.integer(2, 3), num_pool_layers=2, drop_prob=p), shape, context
        return *call(kind), shape, context

    return reordered(build)


def generators(kind: type[nn.Module]) -> Build:
    def build(choose: Choose) -> Any:
        dims, inputs, outputs = choose.integer(1, 3), choose.integer(1, 2), choose.integer(1, 2)
        backwards = kind is not nets.ResNetGenerator and choose.chance(50, "inverse direction")
        width, depth = choose.of([2, 4] if dims < 3 else [2]), choose.integer(1, 3 if dims < 3 else 2)
        size = tuple(4 * (choose.integer(2, 3) if dims < 3 else 2) for _ in range(dims))
        context: dict[str, Any] = {"direction": "inverse"} if backwards else {}
        shape = (choose.integer(1, 2), outputs if backwards else inputs, *size)
        if kind is nets.InterpolationGenerators:
            return *call(kind, choose.of(["nearest", "linear", "cubic"]), choose.integer(2, 3)), shape, context
        if kind is nets.SuperResolutionGenerators:
            options: dict[str, Any] = {"act": choose.of([None, "relu"]), "norm": choose.of(["batch", "instance", None])}
            return *call(kind, dims, inputs, outputs, width, depth - 1, **options), shape, context
        if kind is nets.IndependentGenerators:
            pair = [nets.ResNetGenerator(dims, *ends, width, 1) for ends in ((inputs, outputs), (outputs, inputs))]
            return kind(*pair), "IndependentGenerators(...)", shape, context
        return *call(kind, dims, inputs, outputs, width, depth), shape, context

    return reordered(build)


def diffusion(kind: type[nn.Module]) -> Build:
    def build(choose: Choose) -> Any:
        dims, batch = choose.integer(2, 3), choose.integer(1, 2)
        size = tuple(choose.of([8, 8, 12] if dims == 2 else [8]) for _ in range(dims))
        context: dict[str, Any] = {"timesteps": (batch,)}
        if kind is nets.CheckpointedDiffusionUNet:
            options: dict[str, Any] = {"channels": (4, 8), "num_res_blocks": 1, "norm_num_groups": 2}
            options["attention_levels"] = (False, bool(choose.below(2)))
            return *call(kind, dims, 1, 1, **options), (batch, 1, *size), context
        options = {
            "num_res_units": choose.integer(1, 2),
            "bookends": not choose.chance(25, "no bookends"),
            "attention": choose.of(["channel", "token", None]),
            "downsample": choose.of(["cayley", "squeeze", "matrix_exp", "householder"]),
            "norm_num_groups": choose.integer(1, 4),
            "dropout": 0.2 * choose.chance(40, "dropout"),
            "branch": choose.of(["convolution", "layerwise"]),
        }
        if choose.chance(30, "class labels"):
            options["num_class_embeds"] = 3
            context["class_labels"] = (batch,)
        if choose.chance(30, "cross attention"):
            options["cross_attention_dim"] = 3
            context["context"] = (batch, 2, 3)
        channels = choose.of([(16, 16), (8, 16), (16, 32)])
        return *call(kind, dims, 1, 1, channels, (2,), **options), (batch, 1, *size), context

    return reordered(build)


NETWORKS: dict[type[nn.Module], Build] = {
    nets.FullyInvertibleUNet: unet(nets.FullyInvertibleUNet),
    nets.PartiallyInvertibleUNet: unet(nets.PartiallyInvertibleUNet),
    nets.PlainUNet: unet(nets.PlainUNet),
    nets.IRevNet: classifier(nets.IRevNet),
    nets.RevNet: classifier(nets.RevNet),
    nets.PlainResNet: classifier(nets.PlainResNet),
    nets.InvertibleRIM: reconstruction(nets.InvertibleRIM),
    nets.RecurrentInferenceMachine: reconstruction(nets.RecurrentInferenceMachine),
    nets.MagnitudeUNet: reconstruction(nets.MagnitudeUNet),
    nets.ZeroFilled: reconstruction(nets.ZeroFilled),
    nets.TranslationGenerators: generators(nets.TranslationGenerators),
    nets.SuperResolutionGenerators: generators(nets.SuperResolutionGenerators),
    nets.ResNetGenerator: generators(nets.ResNetGenerator),
    nets.IndependentGenerators: generators(nets.IndependentGenerators),
    nets.InterpolationGenerators: generators(nets.InterpolationGenerators),
    nets.InvertibleDiffusionUNet: diffusion(nets.InvertibleDiffusionUNet),
    nets.CheckpointedDiffusionUNet: diffusion(nets.CheckpointedDiffusionUNet),
}
FEW = {nets.PlainResNet, nets.ZeroFilled, nets.ResNetGenerator, nets.IndependentGenerators, nets.MagnitudeUNet,
       nets.InterpolationGenerators}  # have nothing to switch  # fmt: skip


def network_case(choose: Choose) -> Network:
    """A random network and a short training of it."""
    torch.manual_seed(choose.below(4))
    names = {kind.__name__: 1 if kind in FEW else 6 for kind in NETWORKS}
    name = choose.name(names)
    network, shape, context, story = NETWORKS[getattr(nets, name)](choose)
    with torch.no_grad():
        for p in network.parameters():  # some start at zero
            p += 0.1 * torch.randn_like(p)
    return Network(
        network=network,
        inputs=[shape],
        context=context,
        story=story,
        mode=choose.name({"invert": 4, "checkpoint": 2, "mixed": 3}),
        training=not choose.chance(20, "evaluation"),
        frozen=choose.chance(25, "some frozen"),
        steps=choose.integer(1, 2),
        hook=choose.chance(20, "hook"),
        kind=choose.name({"float64": 6, "float32": 1, "autocast bfloat16": 1}),
        seed=choose.below(1000),
    )


def train(case: Network, store: bool, noise: float = 0.0, noise_seed: int = 0) -> Results:
    """Outputs, gradients and buffers of a few steps of gradient descent."""
    dice, network = random.Random(case.seed), case.network
    dtype = torch.float64 if case.kind == "float64" else torch.float32
    network.to(dtype).train(case.training)
    for p in network.parameters():
        p.requires_grad_(not (case.frozen and dice.random() < 0.5))
    for m in network.modules():
        if isinstance(m, BackpropSwitch):
            modes = m.backprop_modes
            mode = dice.choice(modes) if case.mode == "mixed" else case.mode
            m.backprop = "store" if store or mode not in modes else mode
    generator, disturb = torch.Generator().manual_seed(case.seed), torch.Generator().manual_seed(noise_seed)

    def numbers(shape: tuple[int, ...]) -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (x * (1 + noise * torch.randn(shape, generator=disturb, dtype=torch.float64))).to(dtype)

    if noise:
        with torch.no_grad():
            for p in network.parameters():
                p *= 1 + noise * torch.randn(p.shape, generator=disturb, dtype=torch.float64).to(p.dtype)
    calls: list[float] = []
    if case.hook:
        modules = list(network.modules())
        for m in dice.sample(modules, min(3, len(modules))):
            m.register_forward_hook(lambda m, inputs, output: calls.append(1.0))
    torch.manual_seed(7)
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    gradients: dict[str, Tensor | None] = {}
    for step in range(case.steps):
        x = numbers(case.inputs[0]).requires_grad_()
        context = {}
        for name, value in case.context.items():
            if name == "timesteps":
                context[name] = torch.randint(0, 1000, value, generator=generator)
            elif name == "class_labels":
                context[name] = torch.randint(0, 3, value, generator=generator)
            elif name == "mask":
                context[name] = (numbers(value) > -0.5).to(dtype)
            else:
                context[name] = numbers(value) if isinstance(value, tuple) else value
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=case.kind.startswith("autocast")):
            result = as_tuple(network(x, **context))
        total = sum(t.double().square().mean() for t in result if t.requires_grad)
        if isinstance(total, Tensor):
            total.backward()
        outputs |= {f"{step}.{i}": t.detach().clone() for i, t in enumerate(result)}
        inputs[f"{step}"] = x.grad if x.grad is not None else torch.zeros_like(x)
        gradients |= {f"{step} {k}": p.grad for k, p in network.named_parameters()}
        with torch.no_grad():
            for p in network.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad / (1e-3 + p.grad.abs().max())
    return {
        "outputs": outputs,
        "inputs": inputs,
        "gradients": {k: None if g is None else g.clone() for k, g in gradients.items()},
        "buffers": {k: b.clone() for k, b in network.named_buffers()},
        "exact": {"hook calls": len(calls), "torch random": torch.get_rng_state().sum().item()},
    }


def judge_network(numbers: Sequence[int], without: Collection[str] = ()) -> Verdict:
    """Build the network that the numbers make, once stored and once not, and compare their training."""
    choose = Replayed(numbers, without)
    case = network_case(choose)

    def attempt(store: bool, noise: float = 0.0, noise_seed: int = 0) -> Results:
        return train(network_case(Replayed(numbers, without)), store, noise, noise_seed)

    small = {"float64": 1e-8, "float32": 1e-3}.get(case.kind, 2e-2)
    verdict = judge(attempt, choose.names, small, 1e-15 if case.kind == "float64" else 3e-7)
    verdict.numbers, verdict.names = choose.numbers, choose.names
    verdict.story = (
        f"{case.story}\n{case.inputs}, context: {case.context}, mode={case.mode}, training={case.training}, "
        f"frozen={case.frozen}, steps={case.steps}, {case.kind}, seed={case.seed}"
    )
    return verdict
