"""Carries out a plan (:class:`tests.fuzz.uses.Use`) on a chain, and returns all that can be seen of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from monai_invertible.autograd import BackpropSwitch, InvertibleModule
from monai_invertible.autograd.module import as_tuple
from tests.fuzz.branches import Attributes
from tests.fuzz.chains import Chain
from tests.fuzz.hooks import Seen, hang
from tests.fuzz.uses import Use

__all__ = ["run"]


def prepare(chain: Chain, use: Use, store: bool) -> None:
    """Number type, training, frozen parameters and modes, all as the plan says."""
    dice, network = random.Random(use.seed), chain.network
    if use.kind == "float64":
        network.double()
    if not use.training:
        network.eval()
    parameters = list(network.parameters())
    for i, p in enumerate(parameters):
        frozen = {"some frozen": dice.random() < 0.4, "half frozen": 2 * i < len(parameters), "all frozen": True}
        p.requires_grad_(not frozen.get(use.frozen, False))
    for module in network.modules():
        if isinstance(module, BackpropSwitch):
            mixed = dice.choice(module.backprop_modes)
            module.backprop = "store" if store else mixed if use.mode == "mixed" else use.mode


def laid_out(x: Tensor, name: str) -> Tensor:
    """The same numbers, otherwise in memory."""
    if name == "channels last" and x.ndim in (4, 5):
        return x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    if name == "channels last" and x.ndim == 3:
        return x.mT.contiguous().mT
    if name == "transposed":
        order = [*range(x.ndim)][::-1]
        return x.permute(order).contiguous().permute(order)
    if name == "gaps":
        return torch.stack([x, -x], -1)[..., 0]
    if name == "offset":
        return torch.cat([x.flatten().new_ones(3), x.flatten()])[3:].view(x.shape)
    return x


@contextmanager
def watched(seen: Seen, on: bool) -> Iterator[None]:
    """A hook on all modules, if asked for."""
    if not on:
        yield
        return

    def look(module: nn.Module, *found: Any) -> None:
        if not isinstance(module, InvertibleModule):  # a chain need not call its layers as modules
            seen.see("global hook", ())

    handle = nn.modules.module.register_module_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


def run(chain: Chain, use: Use, store: bool, noise: float = 0.0, noise_seed: int = 0) -> dict[str, dict[str, Any]]:
    """Outputs, gradients, buffers, random streams and what hooks saw, of the chain used as planned.

    ``noise`` disturbs inputs and parameters by that part of themselves: what rounding might do.
    """
    prepare(chain, use, store)
    network, seen = chain.network, Seen()
    dice = random.Random(use.seed + 1)
    dtype = torch.float64 if use.kind == "float64" else torch.float32
    generator = torch.Generator().manual_seed(use.seed)
    disturb = torch.Generator().manual_seed(noise_seed)

    def numbers(shape: tuple[int, ...]) -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (x * (1 + noise * torch.randn(shape, generator=disturb, dtype=torch.float64))).to(dtype)

    if noise:
        with torch.no_grad():
            for p in network.parameters():
                p *= 1 + noise * torch.randn(p.shape, generator=disturb, dtype=torch.float64).to(p.dtype)

    leaves: dict[str, Tensor] = {}

    def state() -> list[Tensor]:
        tensors = []
        for shape, form, wanted in zip(chain.shapes, use.formats, use.wanted, strict=True):
            expanded = form == "expanded" and len(shape) > 2
            leaf = laid_out(numbers((1, *shape[1:]) if expanded else shape), form).requires_grad_(wanted)
            leaves[f"input {len(leaves)}"] = leaf
            tensors.append(leaf.expand(shape) if expanded else leaf)
        return tensors

    context: dict[str, Tensor] = {}
    size = chain.shapes[-1][2:]
    if chain.context == "time":
        context["time"] = (numbers((1, 1, *(1,) * len(size))) / 4).requires_grad_(use.wants_context)
    if chain.context == "kspace":
        context["zero_filled"] = numbers((chain.shapes[-1][0], 2, *size)).requires_grad_(use.wants_context)
        context["mask"] = (numbers((1, 1, *(1,) * (len(size) - 1), size[-1], 1)) > 0).to(dtype)
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    handles = [hang(hook, i, network, seen) for i, hook in enumerate(use.hooks)]
    precision = {"autocast bfloat16": torch.bfloat16, "autocast float16": torch.float16}.get(use.kind)
    casting: Callable[[], Any] = (lambda: torch.autocast("cpu", precision)) if precision else nullcontext
    outputs: list[tuple[Tensor, ...]] = []

    def call(name: str) -> None:
        def function(*tensors: Tensor) -> Any:
            return network(*tensors, **context)

        inputs = state()
        if name.startswith("inverse"):
            with torch.no_grad():
                latent = [t.detach() for t in as_tuple(function(*inputs))]
            latent = [1.01 * t + 0.01 if "edited" in name and t.ndim > 1 else t for t in latent]
            start = len(leaves)
            leaves.update({f"input {start + i}": t.requires_grad_() for i, t in enumerate(latent)})
            outputs.append(as_tuple(network.inverse(*latent, **context)))  # type: ignore[operator]
        elif name == "forward of its output" and outputs:
            last = outputs[-1]
            fits = [t.shape for t in last] == [torch.Size(s) for s in chain.shapes]
            outputs.append(as_tuple(function(*(torch.tanh(t) for t in last) if fits else inputs)))
        elif name == "without gradients":
            with torch.no_grad():
                outputs.append(as_tuple(function(*inputs)))
        elif name == "checkpoint around":
            with set_checkpoint_early_stop(False):  # or buffers depend on what a chain saves
                outputs.append(as_tuple(checkpoint(function, *inputs, use_reentrant=False)))
        elif name == "part after part":
            cut = dice.randint(0, len(network))  # type: ignore[arg-type]
            middle = as_tuple(network[:cut](*inputs, **context)) if cut else tuple(inputs)  # type: ignore[index]
            outputs.append(as_tuple(network[cut:](*middle, **context)))  # type: ignore[index]
        else:
            outputs.append(as_tuple(function(*inputs)))

    with watched(seen, use.global_hook):
        with casting():
            for name in use.calls:
                call(name)
        for hook, handle in zip(use.hooks, handles, strict=True):
            if hook.removed:
                handle.remove()
        with casting():
            change(network, use, lambda: call("forward"))
        leaves |= {k: v for k, v in context.items() if v.requires_grad}
        values = {f"{i}.{j}": t.detach().clone() for i, state_ in enumerate(outputs) for j, t in enumerate(state_)}
        gradients = differentiate(use, network, outputs, seen, leaves, dice, context, chain.shapes)
    found = {
        "outputs": values,
        "gradients": gradients,
        "leaves": {k: t.grad for k, t in leaves.items()},
        "parameters": {k: p.grad for k, p in network.named_parameters()},
        "buffers": {k: b.clone() for k, b in network.named_buffers()},
        "hooks": seen.values,
    }
    found["exact"] = {
        "hook calls": seen.calls,
        "torch random": torch.get_rng_state().sum().item(),
        "python random": random.random(),
        "numpy random": float(np.random.rand()),
        "own generators": own_generators(network),
        "training": [m.training for m in network.modules()],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "calls": [m.calls for m in network.modules() if isinstance(m, Attributes)],
        "tensor types": {k: (t.dtype, t.shape) for k, t in values.items()},
    }
    return found


def own_generators(network: nn.Module) -> list[float]:
    """Where the generators that modules hold stand."""
    generators = (getattr(m, "generator", None) for m in network.modules())
    return [g.get_state().sum().item() for g in generators if g is not None]


def change(network: nn.Module, use: Use, forward: Callable[[], None]) -> None:
    """What happens between forward and backward."""
    holders = [m for m in network.modules() if isinstance(m, Attributes)]
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    if use.between == "evaluate":
        network.eval()
    elif use.between == "train":
        network.train()
    elif use.between == "requires_grad":
        for p in network.parameters():
            p.requires_grad_(False)
    elif use.between == "another forward":
        with torch.no_grad():
            forward()
    with torch.no_grad():
        for p in list(network.parameters())[:1]:
            if use.between == "step in place":
                p.add_(0.1)
            elif use.between == "change data":
                p.data.mul_(1.3)
        if use.between == "change buffer" and buffers:
            buffers[0].add_(0.5)
        for holder in holders:
            if use.between == "change number":
                holder.factor = 0.5
            elif use.between == "change tensor":
                holder.tensor = holder.tensor + 1
            elif use.between == "change tensor in place":
                holder.tensor += 1
            elif use.between == "change list":
                holder.numbers[0] = 3.0
            elif use.between == "change dict":
                holder.table["shift"] = 3.0
            elif use.between == "change string":
                holder.kind = "sigmoid"


def weighted(tensors: list[Tensor]) -> Tensor:
    """A scalar whose gradient differs from place to place."""
    total = torch.zeros((), dtype=torch.float64)
    for i, t in enumerate(tensors):
        weights = 1 + i + torch.linspace(0, 1, t.numel(), dtype=torch.float64).view(t.shape)
        total = total + (t.double() * weights).square().sum()
    return total


def differentiate(
    use: Use,
    network: nn.Module,
    outputs: list[tuple[Tensor, ...]],
    seen: Seen,
    leaves: dict[str, Tensor],
    dice: random.Random,
    context: dict[str, Tensor],
    shapes: list[tuple[int, ...]],
) -> dict[str, Tensor | None]:
    """Backward, in the way planned; what it returns by itself, the rest is in ``.grad``."""
    ends = [t for state in outputs for t in state if t.requires_grad]
    wanted = [t for t in [*leaves.values(), *network.parameters()] if t.requires_grad]
    if not ends or not wanted:
        return {}
    chosen = dice.sample(ends, dice.randint(1, len(ends)))
    extra = [t for t in seen.captured if dice.random() < 0.7]
    total = weighted([*chosen, *extra])
    part = dice.sample(wanted, dice.randint(1, len(wanted)))
    if use.backward == "subset":
        grads = torch.autograd.grad(total, part, retain_graph=use.retain, allow_unused=True)
    elif use.backward == "of a part":
        leaf_parts = [t for t in part if t.is_leaf]
        total.backward(inputs=leaf_parts)
        grads = ()
    elif use.backward == "second order":
        grads = torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True)
        again = [g for g in grads if g is not None and g.requires_grad]
        if again:
            weighted(again).backward()
        grads = tuple(None if g is None else g.detach() for g in grads)
    elif use.backward == "twice":
        total.backward(retain_graph=True)
        total.backward(retain_graph=use.retain)
        grads = ()
    elif use.backward == "one output after the other":
        for t in chosen[:-1]:
            weighted([t]).backward(retain_graph=True)
        weighted(chosen[-1:]).backward()
        grads = ()
    elif use.backward == "independent backwards":
        for t in ends:
            weighted([t]).backward()
        grads = ()
    elif use.backward in ("batched", "jacobian"):
        end = chosen[0]
        rows = torch.stack([torch.linspace(-1, 1, end.numel(), dtype=end.dtype).view(end.shape), torch.ones_like(end)])
        if use.backward == "batched":
            grads = torch.autograd.grad(end, wanted, rows, is_grads_batched=True, allow_unused=True)
        else:
            start = [leaves[f"input {i}"].detach().expand(shape) for i, shape in enumerate(shapes)]

            def function(x: Tensor) -> Tensor:
                return as_tuple(network(x, *start[1:], **context))[-1]

            grads = (torch.autograd.functional.jacobian(function, start[0], vectorize=True),)
    else:
        total.backward(retain_graph=use.retain)
        grads = ()
    return {f"gradient {i}": g for i, g in enumerate(grads)}
