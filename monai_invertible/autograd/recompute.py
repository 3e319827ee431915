"""Record the real autograd graph without its activations, and find them again by walking back from the chain's output.

The forward of a chain runs under ``torch.autograd.graph.saved_tensors_hooks``: what autograd would keep is replaced by
a :class:`Placeholder`. Parameters, buffers and context are kept by reference, with the version check of plain autograd.
When backward asks for a placeholder, the :class:`Walk` goes back from the chain's output: it inverts the last step,
re-runs that step's forward under hooks that collect the very tensors that the graph is asking for, hands them over, and
goes on to the step before when its turn comes. Because the graph is the real one, hooks, DDP, ``autograd.grad``, shared
and frozen parameters and double backward need no code here.

Who holds whom: graph node -> placeholder -> walk -> (chain's output, steps, inputs of the step reached). Nothing refers
back to the graph, so a graph that is dropped or freed takes everything with it at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves, tree_map_only

from monai_invertible.autograd.drift import Before, DriftGuard, Sample
from monai_invertible.autograd.hidden_tensors import warn_of_hidden_tensors
from monai_invertible.autograd.module import Step
from monai_invertible.autograd.replay import Environment, storage, version, without_gaps

__all__ = ["Walk"]


class Reference(NamedTuple):
    """A saved tensor that stays where it is, with the version it had."""

    tensor: Tensor
    version: int


class Placeholder:
    """A saved tensor that will be computed again: the ``position``-th that step number ``step`` of ``walk`` saved."""

    __slots__ = ("position", "step", "walk")

    def __init__(self, walk: Walk, step: int, position: int) -> None:
        self.walk = walk
        self.step = step
        self.position = position


class Spec(NamedTuple):
    """What the recomputed tensor must look like; ``version`` is None for the state, whose count differs."""

    shape: torch.Size
    dtype: torch.dtype
    version: int | None


class Record:
    """What a walk remembers of one step of the forward."""

    def __init__(self, step: Step, state: tuple[Tensor, ...], context: list[Tensor]) -> None:
        self.step = step
        self.environment = Environment(step.module, state)
        self.requires_grad = [t.requires_grad for t in state]
        self.strides = [t.stride() for t in state]
        self.state = {storage(t) for t in state}
        self.references = (self.environment.references() | {storage(t) for t in context}) - self.state
        self.specs: list[Spec | None] = []
        self.values: dict[int, Reference] = {}
        self.running: list[Reference] | None = []  # what is saved, while the forward of the step runs


class Walk:
    """One forward of a chain, and its way back.

    Args:
        steps: the chain's steps.
        context: what they may read; its tensors may require gradients.
        guard: compares what the way back finds.
    """

    def __init__(self, steps: Sequence[Step], context: dict[str, Any], guard: DriftGuard) -> None:
        self.steps = steps
        self.guard = guard
        self.before: dict[int, Before] = {}  # samples of the inputs of steps
        self.after = Sample(())  # will be of the output's last tensor
        # As the re-run reads it: cut off from the graph, requiring gradients where the original does.
        self.context = tree_map_only(Tensor, lambda t: t.detach().requires_grad_(t.requires_grad), context)
        self.context_tensors = [Reference(t, version(t)) for t in tree_leaves(self.context) if isinstance(t, Tensor)]
        self.records: list[Record] = []
        self.output: Any = None  # the node that keeps the chain's output, the one activation a chain keeps
        self.state: tuple[Tensor, ...] = ()  # the inputs of step number `position`, or the chain's output
        self.position = len(steps)

    def run(self, state: tuple[Tensor, ...], context: dict[str, Any]) -> tuple[Tensor, ...]:
        """The chain's forward, as a graph without activations."""
        tensors = [t for t in tree_leaves(context) if isinstance(t, Tensor)]
        hooks = uncompiled(self.pack), uncompiled(unpack)
        for step in self.steps:
            record = Record(step, state, tensors)
            self.records.append(record)
            with record.environment.record(), saved_tensors_hooks(*hooks):
                outputs = tuple(without_gaps(t) for t in step.forward(*state, **context))
            if type(step).invert is Step.invert and record.environment.changed_by_hooks(step.module):
                raise RuntimeError(
                    f"InvertibleSequential: a forward hook changed the input or output of layer {step}, which its "
                    'inverse cannot undo. Hook a branch of the layer instead, or use backprop="store".'
                )
            warn_of_hidden_tensors(step, outputs, state)
            if self.guard.trace is not None or (self.guard.on and record.specs and not self.before):
                # Of the chain's input; backward comes no further than to the first step that saves something.
                self.before[len(self.records) - 1] = Before(state, whole=self.guard.trace is not None)
            record.running = None
            record.state = set()  # these identify storages only while the storages live
            record.references = set()
            state = outputs
        if any(record.specs for record in self.records):
            anchor = torch.empty(0, requires_grad=True)
            self.output = Kept.apply(anchor, *(t.detach() for t in state))
            if self.guard.on:
                self.after = Sample(state[-1:])
        return state

    def pack(self, tensor: Tensor) -> Reference | Placeholder:
        """Called by autograd for each tensor that it saves during the forward."""
        record = self.records[-1]
        key = storage(tensor)
        reference = Reference(tensor.detach(), version(tensor))
        if record.running is not None:
            record.running.append(reference)
        if key in record.references:
            record.specs.append(None)
            return reference
        record.specs.append(Spec(tensor.shape, tensor.dtype, None if key in record.state else reference.version))
        return Placeholder(self, len(self.records) - 1, len(record.specs) - 1)

    def fetch(self, placeholder: Placeholder) -> Tensor:
        """The tensor behind a placeholder; walks back as far as it takes.

        Each is handed over once, so that it can be freed early. Once the last step's graph is used, and not retained,
        nobody will start again from the chain's output, and that is let go as well.
        """
        step, position = placeholder.step, placeholder.position
        record = self.records[step]
        if record.running is not None:  # a branch that itself calls torch.autograd.grad
            return unpack(record.running[position])
        if position not in record.values:
            if self.position < step or not self.state:
                self.state, self.position = self._output(), len(self.steps)
                begins = not any(later.specs for later in self.records[step + 1 :])
                if begins and not torch._C._autograd._get_current_graph_task_keep_graph():  # no public question
                    self.output = None
            if self.position == step:  # asked for a second time
                with torch.no_grad(), record.environment.replay():
                    self._capture(record, record.step.forward, *self.state, **self.context)
            while self.position > step:
                if self.position < len(self.steps):
                    self.records[self.position].values.clear()
                self._step_back()
        return unpack(record.values.pop(position))

    def _output(self) -> tuple[Tensor, ...]:
        if self.output is None and self.state:
            raise RuntimeError(
                "InvertibleSequential: trying to backward through the chain a second time, but its output has been "
                "freed. Use retain_graph=True the first time."
            )
        if self.output is None:
            raise RuntimeError(
                "InvertibleSequential: a branch differentiated through the layers before it while the chain was still "
                'running. Detach the input of the branch from what it differentiates, or use backprop="store".'
            )
        try:
            return tuple(t.detach() for t in self.output.grad_fn.saved_tensors)
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            raise RuntimeError(
                "InvertibleSequential: the chain's output was changed in place between forward and backward, but "
                "walking back starts from it. Use an out-of-place operation after the chain, such as "
                f"ReLU(inplace=False), or clone. ({error})"
            ) from error

    def _step_back(self) -> None:
        record = self.records[self.position - 1]
        for reference in self.context_tensors:
            unpack(reference)  # checks the version

        def capture(function: Callable[..., Any], *inputs: Tensor | None, **context: Any) -> Any:
            return self._capture(record, function, *inputs, **context)

        with torch.no_grad(), record.environment.replay():
            if record.specs:
                state = record.step.recompute(capture, *self.state, **self.context)
            else:  # nothing is asked for
                state = record.step.invert(*self.state, **self.context)
        self.state, self.position = tuple(without_gaps(t.detach()) for t in state), self.position - 1
        if self.position in self.before:
            self.guard.compare(self.before[self.position], self.after, self.state, self.steps, self.position)

    def _capture(self, record: Record, function: Callable[..., Any], *inputs: Tensor | None, **context: Any) -> Any:
        """Evaluate ``function`` and keep what autograd saves for the graph that is waiting for it."""
        leaves = [
            None if t is None else with_strides(t.detach(), strides).requires_grad_(flag)
            for t, strides, flag in zip(inputs, record.strides, record.requires_grad, strict=True)
        ]
        values: dict[int, Reference] = {}
        count = 0

        def collect(tensor: Tensor) -> Reference:
            nonlocal count
            reference = Reference(tensor.detach(), version(tensor))
            if count < len(record.specs):
                spec = record.specs[count]
                if spec is not None:
                    if (tensor.shape, tensor.dtype) != spec[:2] or spec.version not in (None, reference.version):
                        raise self._not_repeated(
                            record,
                            f"saved tensor {count} was {spec} and became "
                            f"{Spec(tensor.shape, tensor.dtype, reference.version)}",
                        )
                    values[count] = reference
            count += 1
            return reference  # for a branch that itself calls torch.autograd.grad

        with torch.enable_grad(), saved_tensors_hooks(uncompiled(collect), uncompiled(unpack)):
            result = function(*leaves, **context)
        if count != len(record.specs):
            raise self._not_repeated(
                record, f"its forward saved {len(record.specs)} tensors and its recomputation {count}"
            )
        record.values = values
        return tree_map_only(Tensor, Tensor.detach, result)

    def _not_repeated(self, record: Record, what: str) -> RuntimeError:
        where = f"step {self.records.index(record)} of {len(self.steps)}, {record.step}"
        return RuntimeError(
            f"InvertibleSequential: {where}, does not repeat itself: {what}. A branch must depend on its input, "
            "parameters, buffers and context only. Remove what changes between forward and backward, or use "
            'backprop="store".'
        )


def unpack(packed: Reference | Placeholder) -> Tensor:
    """Called by autograd when backward needs a saved tensor."""
    if isinstance(packed, Placeholder):
        return packed.walk.fetch(packed)
    if version(packed.tensor) != packed.version:
        raise RuntimeError(
            "InvertibleSequential: one of the variables needed for gradient computation has been modified by an "
            f"inplace operation: a tensor of shape {tuple(packed.tensor.shape)} is at version "
            f"{version(packed.tensor)}, expected {packed.version}. If it is a parameter, buffer or context tensor, "
            "call backward before changing it; if a branch changes it, use inplace=False there."
        )
    return packed.tensor


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep ``torch.compile``, if it is in use, from compiling what the engine does around compiled branches."""
    return torch.compiler.disable(function) if "torch._dynamo" in sys.modules else function


class Kept(torch.autograd.Function):
    """Keeps tensors outside of any graph, yet as autograd does: through the hooks around it, with a version check."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise AssertionError("nothing depends on it")


def with_strides(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The tensor laid out in memory as it was in the forward, since compiled kernels rely on it."""
    same = all(n <= 1 or a == b for n, a, b in zip(tensor.shape, tensor.stride(), strides, strict=True))
    if same or 0 in strides:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
