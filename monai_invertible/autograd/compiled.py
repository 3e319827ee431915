"""The chain under ``torch.compile``: one Function over the whole chain, which the compiler can trace.

Dynamo does not follow saved-tensor hooks, so here the forward runs without a graph, and the backward inverts step after
step and differentiates each with ``torch.func.vjp``. The same results and the same flat memory as the eager engine, in
one compiled graph. A chain that draws random numbers or updates buffers cannot be repeated inside a compiled graph:
there the graph breaks, and the chain runs in the eager engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module  # functional_call for any method, not only forward
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_invertible.autograd.module import Composition, Step, as_tuple, run_steps
from monai_invertible.autograd.recompute import Walk

if TYPE_CHECKING:
    from monai_invertible.autograd.sequential import InvertibleSequential

__all__ = ["run_compiled"]


def run_compiled(
    chain: InvertibleSequential, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Run the chain so that ``torch.compile`` gives exact gradients with flat memory."""
    keys = tuple(k for k, v in context.items() if isinstance(v, Tensor))
    constants = {k: v for k, v in context.items() if not isinstance(v, Tensor)}
    if any(isinstance(t, Tensor) for t in tree_leaves(constants)):  # in a list, say: the Function would not see it
        return _run_eager(chain, inverse, state, context)
    described = tuple(_describe(t) for t in state), tuple((k, _describe(context[k])) for k in keys)
    if not repeatable(chain, inverse, *described):
        return _run_eager(chain, inverse, state, context)
    parameters = tuple(chain.parameters())
    return as_tuple(
        _Chain.apply(chain, inverse, len(state), keys, constants, *state, *(context[k] for k in keys), *parameters)
    )


@torch.compiler.disable
def _run_eager(
    chain: InvertibleSequential, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any]
) -> tuple[Tensor, ...]:
    return Walk(list(chain.steps(inverse)), context, chain.guard, type(chain).__name__).run(state)


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
        ctx.save_for_backward(*outputs, *tensors[n : n + len(keys)])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saved = ctx.saved_tensors
        state = tuple(t.detach() for t in saved[: ctx.n])
        tensors = {k: t.detach() for k, t in zip(ctx.keys, saved[ctx.n :], strict=True) if t.is_floating_point()}
        constants = {
            **ctx.constants,
            **{k: t.detach() for k, t in zip(ctx.keys, saved[ctx.n :], strict=True) if not t.is_floating_point()},
        }
        context_grads: dict[str, Tensor] = {}
        parameter_grads: dict[int, Tensor] = {}
        for step in reversed(list(ctx.chain.steps(ctx.inverse))):
            parameters = dict(step.module.named_parameters())
            inputs = tuple(t.detach() for t in step.invert(*state, **constants, **tensors))

            def forward(
                p: dict[str, Tensor], c: dict[str, Tensor], *s: Tensor, step: Step = step
            ) -> tuple[Tensor, ...]:
                with _reparametrize_module(step.module, p, tie_weights=True):
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


def _describe(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype, torch.device]:
    return tuple(int(n) for n in tensor.shape), tensor.dtype, tensor.device


@torch.compiler.assume_constant_result
def repeatable(chain: Composition, inverse: bool, state: Any, context: Any) -> bool:
    """Whether the chain updates no buffer and draws no random numbers; a trial run on fake tensors tells."""
    if any(m.training and any(b is not None for b in m._buffers.values()) for m in chain.modules()):
        return False
    if any(isinstance(m, Composition) for step in chain.steps() for m in step.module.modules()):
        return False  # a chain inside a branch would put its Function inside torch.func.vjp
    watch = _RandomOperations()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), watch:
        tensors = tuple(torch.empty(shape, dtype=dtype, device=device) for shape, dtype, device in state)
        named = {k: torch.empty(shape, dtype=dtype, device=device) for k, (shape, dtype, device) in context}
        run_steps(chain.steps(inverse), tensors, named)
    return not watch.seen


class _RandomOperations(TorchDispatchMode):
    """Sees whether random operations are executed."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))
