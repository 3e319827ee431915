"""Random hooks on any module of a network: lookers, changers, on the way forward and back, removed early or not.

Lookers are counted. Changers are not: what they change must be changed again where a branch is evaluated again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.hooks import RemovableHandle

from monai_invertible.autograd import InvertibleModule
from tests.fuzz.choose import Choose

__all__ = ["Hook", "Seen", "hang", "random_hook"]

KINDS = {"looker": 3, "grad looker": 2, "early looker": 1, "self-removing looker": 1, "backward looker": 2,
         "early backward looker": 1, "changer": 2, "early changer": 1, "backward changer": 1}  # fmt: skip


@dataclass
class Seen:
    """What the hooks of one network have seen."""

    calls: dict[str, int] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    captured: list[Tensor] = field(default_factory=list)  # computed with gradients, to enter the loss

    def see(self, name: str, tensors: Any) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        total = [t.detach().double().sum() for t in tree_leaves(tensors) if isinstance(t, Tensor)]
        if total:
            self.values[name] = self.values.get(name, torch.zeros((), dtype=torch.float64)) + torch.stack(total).sum()


@dataclass
class Hook:
    """Where a hook hangs, what it does, and when it is taken down."""

    module: int
    kind: str
    removed: bool  # before backward


def random_hook(choose: Choose, network: nn.Module) -> Hook:
    modules = list(network.modules())
    at = choose.below(len(modules))
    allowed = {k: w for k, w in KINDS.items()}
    if isinstance(modules[at], InvertibleModule):
        if "hook on layer" in choose.without:
            at = next((i for i, m in enumerate(modules) if not isinstance(m, InvertibleModule)), at)
        choose.names.add("hook on layer" if isinstance(modules[at], InvertibleModule) else "hook")
    return Hook(at, choose.name(allowed), choose.chance(25, "hook removed"))


def hang(hook: Hook, number: int, network: nn.Module, seen: Seen) -> RemovableHandle:
    """Hang it on the network."""
    module = list(network.modules())[hook.module]
    name = f"{number} {hook.kind}"

    def looker(m: nn.Module, inputs: Any, *output: Any) -> None:
        seen.see(name, output or inputs)

    def grad_looker(m: nn.Module, inputs: Any, output: Any) -> None:
        seen.see(name, output)
        if torch.is_grad_enabled():
            floats = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
            seen.captured += [t.double().square().mean() for t in floats]

    def changer(m: nn.Module, inputs: Any, *output: Any) -> Any:
        return tree_map_only(Tensor, lambda t: 1.1 * t if t.is_floating_point() else t, output[0] if output else inputs)

    def backward_looker(m: nn.Module, *grads: Any) -> None:
        seen.see(name, grads)

    def backward_changer(m: nn.Module, inputs: Any, outputs: Any) -> Any:
        return tree_map_only(Tensor, lambda t: 1.1 * t, inputs)

    def self_removing(m: nn.Module, inputs: Any, output: Any) -> None:
        seen.see(name, output)
        handle.remove()

    register: dict[str, Any] = {
        "looker": lambda: module.register_forward_hook(looker),
        "grad looker": lambda: module.register_forward_hook(grad_looker),
        "early looker": lambda: module.register_forward_pre_hook(looker),
        "self-removing looker": lambda: module.register_forward_hook(self_removing),
        "backward looker": lambda: module.register_full_backward_hook(backward_looker),
        "early backward looker": lambda: module.register_full_backward_pre_hook(backward_looker),
        "changer": lambda: module.register_forward_hook(changer),
        "early changer": lambda: module.register_forward_pre_hook(changer),
        "backward changer": lambda: module.register_full_backward_hook(backward_changer),
    }
    handle: RemovableHandle = register[hook.kind]()
    return handle
