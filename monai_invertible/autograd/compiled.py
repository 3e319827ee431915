"""The chain under ``torch.compile``: one Function over the whole chain, which the compiler can trace.

Dynamo does not follow saved-tensor hooks, so here the forward runs without a graph, and the backward inverts step after
step and differentiates each with ``torch.func.vjp``. The same results and the same flat memory as the eager engine, in
one compiled graph. A chain that draws random numbers or updates buffers cannot be repeated inside a compiled graph:
there the graph breaks, and the chain runs in the eager engine (:mod:`monai_invertible.autograd.repeatable`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from monai_invertible.autograd.module import Composition, Step, as_tuple, run_steps
from monai_invertible.autograd.repeatable import note, repeatable
from monai_invertible.autograd.torch_internals import compiles_chains, with_parameters

__all__ = ["run_compiled"]

COMPILES_CHAINS = compiles_chains()
Run = Callable[[bool, tuple[Tensor, ...], dict[str, Any]], tuple[Tensor, ...]]


def run_compiled(
    chain: Composition, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any], eagerly: Run
) -> tuple[Tensor, ...]:
    """Run the chain so that ``torch.compile`` gives exact gradients with flat memory.

    Args:
        chain: whose steps run.
        inverse: in the other direction.
        state: the chain's input.
        context: what its layers may read.
        eagerly: how the chain runs where the graph has to break; receives ``inverse``, ``state`` and ``context``.
    """
    if not COMPILES_CHAINS:
        return _outside_of_the_graph(eagerly, inverse, state, context)
    keys = tuple(k for k, v in context.items() if isinstance(v, Tensor))
    constants = {k: v for k, v in context.items() if not isinstance(v, Tensor)}
    if any(isinstance(t, Tensor) for t in tree_leaves(constants)):  # in a list, say: the Function would not see it
        return _outside_of_the_graph(eagerly, inverse, state, context)
    for i, tensor in enumerate(state):
        note(f"{i}", tensor)
    for name, value in context.items():
        note(f".{name}", value)
    # The flags are read here, in the graph, so that another train/eval mode compiles, and decides, anew.
    flags = tuple(m.training for m in chain.modules())
    if not repeatable(chain, inverse, flags, len(state), tuple(context)):
        return _outside_of_the_graph(eagerly, inverse, state, context)
    parameters = tuple(chain.parameters())
    return as_tuple(
        _Chain.apply(chain, inverse, len(state), keys, constants, *state, *(context[k] for k in keys), *parameters)
    )


@torch.compiler.disable
def _outside_of_the_graph(
    eagerly: Run, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any]
) -> tuple[Tensor, ...]:
    return eagerly(inverse, state, context)


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        chain: Composition,
        inverse: bool,
        n: int,
        keys: tuple[str, ...],
        constants: dict[str, Any],
        *tensors: Tensor,
    ) -> Any:
        context = {**constants, **dict(zip(keys, tensors[n : n + len(keys)], strict=True))}
        outputs = run_steps(chain.steps(inverse), tensors[:n], context)
        ctx.chain, ctx.inverse, ctx.keys, ctx.constants = chain, inverse, keys, constants
        ctx.n = len(outputs)
        device = tensors[0].device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        ctx.save_for_backward(*outputs, *tensors[n : n + len(keys)])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        device, dtype, enabled = ctx.autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False):  # as the forward ran
            return _backward(ctx, grads)


def _backward(ctx: Any, grads: tuple[Tensor, ...]) -> Any:
    saved = ctx.saved_tensors
    state = tuple(t.detach() for t in saved[: ctx.n])
    tensors = {k: t.detach() for k, t in zip(ctx.keys, saved[ctx.n :], strict=True) if differentiable(t)}
    constants = {
        **ctx.constants,
        **{k: t.detach() for k, t in zip(ctx.keys, saved[ctx.n :], strict=True) if not differentiable(t)},
    }
    context_grads: dict[str, Tensor] = {}
    parameter_grads: dict[int, Tensor] = {}
    for step in reversed(list(ctx.chain.steps(ctx.inverse))):
        parameters = dict(step.module.named_parameters())
        inputs = tuple(t.detach() for t in step.invert(*state, **constants, **tensors))

        def forward(p: dict[str, Tensor], c: dict[str, Tensor], *s: Tensor, step: Step = step) -> tuple[Tensor, ...]:
            with with_parameters(step.module, p):
                return step.forward(*s, **constants, **c)

        pull: Any = torch.func.vjp(forward, parameters, tensors, *inputs)[1]
        by_parameter, by_context, *by_input = pull(tuple(grads))
        grads = tuple(by_input)
        for name, parameter in parameters.items():
            _add(parameter_grads, id(parameter), by_parameter[name])
        for key, grad in by_context.items():
            _add(context_grads, key, grad)
        state = inputs
    return (
        *(None,) * 5,
        *grads,
        *(context_grads.get(k) for k in ctx.keys),
        *(parameter_grads.get(id(p)) for p in ctx.chain.parameters()),
    )


def _add(grads: dict[Any, Tensor], key: Any, grad: Tensor) -> None:
    grads[key] = grads[key] + grad if key in grads else grad


def differentiable(tensor: Tensor) -> bool:
    """Whether gradients flow into it."""
    return tensor.is_floating_point() or tensor.is_complex()
