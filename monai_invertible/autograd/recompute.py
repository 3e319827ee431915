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
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from monai_invertible.autograd.call_streams import CallStreams
from monai_invertible.autograd.containers import map_tensors, tensors_in
from monai_invertible.autograd.drift import DriftGuard
from monai_invertible.autograd.drift_watch import Watch
from monai_invertible.autograd.hidden_tensors import warn_of_hidden_tensors
from monai_invertible.autograd.memory import own_memory, with_strides
from monai_invertible.autograd.module import Step, Whole, run_step, waiting
from monai_invertible.autograd.replay import Environment
from monai_invertible.autograd.stream_order import StreamOrder
from monai_invertible.autograd.torch_internals import (
    graph_is_retained,
    is_fake,
    is_shard,
    outside_transforms,
    storage,
    version,
)

__all__ = ["Walk"]

nothing: Any = nullcontext()
STILL_SHARDED = (
    "{}: the parameters of {} are still shared out among the processes. fully_shard gathers them when the module that "
    "it was given is called, and here its inverse ran. Register the inverse, register_fsdp_forward_method(module, "
    "'inverse') of torch.distributed.fsdp, or give fully_shard the branches."
)
UNDONE = 1e-2  # relative error of an inverse that has drawn other random numbers than the forward


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

    def __init__(self, step: Step, state: tuple[Tensor, ...], context: Sequence[Tensor], who: str) -> None:
        self.step = step
        self.environment = Environment(step.module, (*state, *context), who)
        self.requires_grad = [t.requires_grad for t in state]
        self.strides = [t.stride() for t in state]
        self.state = {storage(t) for t in state}
        self.references = (self.environment.references() | {storage(t) for t in context}) - self.state
        self.specs: list[Spec | None] = []
        self.values: dict[int, Reference] = {}
        self.kept = tuple(Reference(t.detach(), version(t)) for t in step.keep(*state))
        self.inputs: tuple[Tensor, ...] | None = state  # while the forward of the step runs
        self.calls = CallStreams(step.module, self.environment.random) if type(step).invert is Step.invert else None

    def ran(self) -> None:
        """The forward of the step is over."""
        self.inputs = None
        self.values = {}
        self.state = set()  # these identify storages only while the storages live
        self.references = set()


class Walk:
    """One forward of a chain, and its way back.

    Args:
        steps: the chain's steps.
        context: what they may read; its tensors may require gradients.
        guard: compares what the way back finds.
        who: the class named in errors.
    """

    def __init__(self, steps: Sequence[Step], context: dict[str, Any], guard: DriftGuard, who: str) -> None:
        self.steps = steps
        self.who = who
        self.guard = guard
        self.watches: dict[int, Watch | None] = {}  # of the inputs of steps
        self.given = context
        self.given_tensors = list(tensors_in(context))
        # As the re-run reads it: cut off from the graph, requiring gradients where the original does.
        self.context = map_tensors(lambda t: t.detach().requires_grad_(t.requires_grad), context)
        self.context_tensors = [Reference(t, version(t)) for t in tensors_in(self.context)]
        self.records: list[Record] = []
        self.output: Any = None  # whose node keeps the chain's output, the one activation a chain keeps
        self.unused: set[int] = set()  # outputs whose gradient no backward has brought yet
        self.state: tuple[Tensor, ...] = ()  # the inputs of step number `position`, or the chain's output
        self.position = 0
        self.lock = threading.RLock()  # a graph may be used by several threads
        self.busy = False
        self.streams: dict[Any, Any] = {}  # states of random streams, handed from step to step
        self.order = StreamOrder()

    def run(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The chain's forward, as a graph without activations."""
        refuse_graph_capture(self.who, state)
        state = self.run_steps(self.steps, state)
        self.position = len(self.records)
        if any(record.specs for record in self.records):
            anchor = torch.empty(0, requires_grad=True)
            self.output = Kept.apply(anchor, *(t.detach() for t in state))
            self.order.hand_over(state)
            self._await_gradients(state)
            for watch in filter(None, self.watches.values()):
                watch.end(state)
        del self.given, self.given_tensors  # they refer to a graph
        return state

    def run_steps(self, steps: Iterable[Step], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run and record steps; one that is called as a whole comes back here with the steps it consists of."""
        for step in steps:
            state = self._call(step, state) if isinstance(step, Whole) else self._record(step, state)
        return state

    def _record(self, step: Step, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        record = Record(step, state, self.given_tensors, self.who)
        self.records.append(record)
        hooks = saved_tensors_hooks(uncompiled(self.pack), uncompiled(self.unpack))
        with record.environment.record(self.streams), record.calls or nothing, hooks:
            try:
                outputs = run_step(step, state, self.given)
            except RuntimeError as error:
                if "DTensor" in str(error) and any(is_shard(p) for p in step.module.parameters()):
                    raise RuntimeError(STILL_SHARDED.format(self.who, step)) from error
                raise
        if type(step).invert is Step.invert and record.environment.hooks.changed_values(step.module):
            raise self._hook_changes(step)
        warn_of_hidden_tensors(step, outputs, state, self.who)
        if self.guard.trace is not None or (record.specs and not self.watches):
            # Of the chain's input; backward comes no further than to the first step that saves something.
            self.watches[len(self.records) - 1] = self.guard.begin(state)
        record.ran()
        return outputs

    def _call(self, step: Whole, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Call a hooked composition, so that its hooks fire; it hands its steps to this walk."""
        with waiting(self, step.module, state, self.given) as visit:
            outputs = step.forward(*state, **self.given)
        if not visit.undisturbed(outputs):
            raise self._hook_changes(step)
        return outputs

    def _hook_changes(self, step: Step) -> RuntimeError:
        return RuntimeError(
            f"{self.who}: a forward hook changed the input or output of layer {step}, which its inverse cannot undo. "
            'Hook a branch of the layer instead, or use backprop="store".'
        )

    def _await_gradients(self, state: tuple[Tensor, ...]) -> None:
        """Notice which outputs a backward begins from: until then, it may still begin from the others."""
        me = weakref.ref(self)
        for node in {t.grad_fn for t in state if t.grad_fn is not None}:

            def begins(grads: Any, key: int = id(node)) -> None:
                walk = me()
                if walk is not None:
                    walk.unused.discard(key)

            self.unused.add(id(node))
            node.register_prehook(begins)

    def pack(self, tensor: Tensor) -> Reference | Placeholder:
        """Called by autograd for each tensor that it saves during the forward."""
        record = self.records[-1]
        key = storage(tensor)
        if key in record.references:
            record.specs.append(None)
            return Reference(tensor.detach(), version(tensor))
        record.specs.append(Spec(tensor.shape, tensor.dtype, None if key in record.state else version(tensor)))
        return Placeholder(self, len(self.records) - 1, len(record.specs) - 1)

    def unpack(self, packed: Reference | Placeholder) -> Tensor:
        """Called by autograd when backward needs a saved tensor."""
        if isinstance(packed, Placeholder):
            return packed.walk.fetch(packed)
        if version(packed.tensor) != packed.version:
            raise RuntimeError(
                f"{self.who}: one of the variables needed for gradient computation has been modified by an inplace "
                f"operation: a tensor of shape {tuple(packed.tensor.shape)} is at version {version(packed.tensor)}, "
                f"expected {packed.version}. If it is a parameter, buffer or context tensor, call backward before "
                "changing it; if a branch changes it, use inplace=False there."
            )
        return packed.tensor

    def fetch(self, placeholder: Placeholder) -> Tensor:
        """The tensor behind a placeholder; walks back as far as it takes."""
        with self.lock, torch.inference_mode(False), outside_transforms():
            if self.busy:
                raise RuntimeError(
                    f"{self.who}: a branch asked for the chain's own activations while they are recomputed. Do not "
                    'differentiate through the chain in its own branches, or use backprop="store".'
                )
            self.busy = True
            try:
                return self._fetch(self.records[placeholder.step], placeholder.step, placeholder.position)
            finally:
                self.busy = False

    def _fetch(self, record: Record, step: int, position: int) -> Tensor:
        """Each tensor is handed over once, so that it can be freed early.

        Once the last step's graph is used, and not retained, and no other output waits for its backward, nobody will
        start again from the chain's output, and that is let go as well.
        """
        if record.inputs is not None:  # a branch that itself calls torch.autograd.grad
            if position not in record.values:
                try:
                    self._capture(record, record.step.forward, *record.inputs, **self.context)
                except RuntimeError as error:
                    raise self._differentiated_while_running() from error
            return self.unpack(record.values[position])
        self.order.hand_over(
            (*self.state, *(r.tensor for r in record.values.values()), *(t.tensor for t in record.kept))
        )
        if position not in record.values:
            if self.position < step or not self.state:
                self.state, self.position = self._output(), len(self.records)
                self.order.hand_over(self.state)
                begins = not any(later.specs for later in self.records[step + 1 :])
                if begins and not self.unused and not graph_is_retained():
                    self.output = None
            if self.position == step:  # asked for a second time
                self._capture(record, record.step.forward, *self.state, **self.context)
            while self.position > step:
                if self.position < len(self.records):
                    self.records[self.position].values = {}
                self._step_back()
        return self.unpack(record.values.pop(position))

    def _output(self) -> tuple[Tensor, ...]:
        if self.output is None and self.state:
            raise RuntimeError(
                f"{self.who}: trying to backward through the chain a second time, but its output has been freed. Use "
                "retain_graph=True the first time."
            )
        if self.output is None:
            raise self._differentiated_while_running()
        try:
            return tuple(t.detach() for t in self.output.grad_fn.saved_tensors)
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            raise RuntimeError(
                f"{self.who}: the chain's output was changed in place between forward and backward, but walking back "
                "starts from it. Use an out-of-place operation after the chain, such as ReLU(inplace=False), or clone. "
                f"({error})"
            ) from error

    def _differentiated_while_running(self) -> RuntimeError:
        return RuntimeError(
            f"{self.who}: a branch differentiated through the layers before it while the chain was still running. "
            'Detach the input of the branch from what it differentiates, or use backprop="store".'
        )

    def _step_back(self) -> None:
        record = self.records[self.position - 1]
        for reference in (*self.context_tensors, *record.kept):
            self.unpack(reference)  # checks the version
        repeated: list[Any] = []

        def evaluate(function: Callable[..., Any], *inputs: Tensor, **context: Any) -> Any:
            with torch.no_grad(), record.environment.replay(), record.calls.again() if record.calls else nothing:
                return function(*inputs, **context)

        def capture(function: Callable[..., Any], *inputs: Tensor | None, **context: Any) -> Any:
            repeated.append(self._capture(record, function, *inputs, **context))
            return repeated[-1]

        known = (*self.state, *(t.tensor for t in record.kept))
        with torch.no_grad():
            if record.specs:
                state = record.step.recompute(evaluate, capture, *known, **self.context)
            else:  # nothing is asked for
                state = evaluate(record.step.invert, *known, **self.context)
        if type(record.step) is Step and record.environment.changes_itself and repeated:
            self._check_undone(record, self.state, repeated[0])
        self.state, self.position = tuple(own_memory(t.detach()) for t in state), self.position - 1
        watch = self.watches.get(self.position)
        if watch is not None:
            steps = [record.step for record in self.records]
            self.guard.judge(watch, self.state, steps, self.position, self.who)

    def _capture(self, record: Record, function: Callable[..., Any], *inputs: Tensor | None, **context: Any) -> Any:
        """Evaluate ``function`` and keep what autograd saves for the graph that is waiting for it."""
        leaves = [
            None if t is None else with_strides(t.detach(), strides).requires_grad_(flag)
            for t, strides, flag in zip(inputs, record.strides, record.requires_grad, strict=True)
        ]
        specs, expected = record.specs, len(record.specs)
        values: dict[int, Reference] = {}
        count = 0

        def collect(tensor: Tensor) -> Reference:
            nonlocal count
            reference = Reference(tensor.detach(), version(tensor))
            if count < expected:
                spec = specs[count]
                if spec is not None:
                    if (tensor.shape, tensor.dtype) != spec[:2] or spec.version not in (None, reference.version):
                        found = Spec(tensor.shape, tensor.dtype, reference.version)
                        raise self._not_repeated(record, f"saved tensor {count} was {spec} and became {found}")
                    values[count] = reference
            elif record.inputs is not None:
                raise Enough
            count += 1
            return reference  # for a branch that itself calls torch.autograd.grad

        hooks = saved_tensors_hooks(uncompiled(collect), uncompiled(self.unpack))
        with torch.enable_grad(), record.environment.replay(), hooks:
            try:
                result = function(*leaves, **context)
            except Exception:
                if record.inputs is None or count < expected:
                    raise
                result = None  # as far as the forward has come so far, and as anyone can ask
        if count != expected and record.inputs is None:
            raise self._not_repeated(record, f"its forward saved {expected} tensors and its recomputation {count}")
        record.values = values
        return map_tensors(Tensor.detach, result)

    def _check_undone(self, record: Record, outputs: tuple[Tensor, ...], repeated: tuple[Tensor, ...]) -> None:
        """An inverse that draws its random numbers in another order finds another input, and nobody would notice."""
        with torch.no_grad():
            for a, b in zip(outputs, repeated, strict=True):
                if not a.is_floating_point() or is_fake(a):
                    continue
                if (a.float() - b.float()).square().mean() > UNDONE**2 * a.float().square().mean():
                    raise RuntimeError(
                        f"{self.who}: the inverse of {self._where(record)}, does not undo its forward, which draws "
                        "random numbers or changes buffers: it must draw and change the same, module by module. Write "
                        "its random branches as modules that forward and inverse call alike, make it of couplings, or "
                        'use backprop="checkpoint".'
                    )

    def _where(self, record: Record) -> str:
        return f"step {self.records.index(record)} of {len(self.records)}, {record.step}"

    def _not_repeated(self, record: Record, what: str) -> RuntimeError:
        return RuntimeError(
            f"{self.who}: {self._where(record)}, does not repeat itself: {what}. A branch must depend on its input, "
            "parameters, buffers and context only. Remove what changes between forward and backward, or use "
            'backprop="store".'
        )


def refuse_graph_capture(who: str, state: Sequence[Tensor]) -> None:
    """Raise RuntimeError while a CUDA graph is captured: it would repeat the same random numbers in every replay."""
    if any(t.is_cuda for t in state) and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{who}: a chain that walks back cannot be captured in a CUDA graph. Capture it with "
            'backprop="store", or use torch.compile, or train without the graph.'
        )


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep ``torch.compile``, if it is in use, from compiling what the engine does around compiled branches."""
    return torch.compiler.disable(function) if "torch._dynamo" in sys.modules else function


class Enough(Exception):
    """The repetition has come as far as the forward that is still running."""


class Kept(torch.autograd.Function):
    """Keeps tensors outside of any graph, yet as autograd does: through the hooks around it, with a version check."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise AssertionError("nothing depends on it")
