"""The memory of one training step, by purpose, as a small table."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["MemoryReport"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class MemoryReport:
    """Bytes of the tensors of one training step, as ``estimate_training_step`` finds them; ``str(report)`` is a table.

    Tensors only: no workspace of a kernel, no reserve of an allocator, no framework. Never a measurement of a GPU.

    Attributes:
        network: name of the network's class.
        simulated: whether the step ran on fake tensors (nothing was computed) or on real ones.
        parameters: parameters, frozen ones included.
        buffers: buffers, such as running statistics.
        inputs: the tensors given to the network.
        gradients: gradients of the parameters after backward.
        optimizer: state that the optimizer keeps from step to step.
        activations: alive at the end of forward: what the graph keeps, the output and the loss.
        peak: all of the above that is alive at the worst moment of forward and backward, intermediate results
            included. The temporaries of the optimizer's own step are not.
    """

    network: str
    simulated: bool
    parameters: int
    buffers: int
    inputs: int
    gradients: int
    optimizer: int
    activations: int
    peak: int

    def __str__(self) -> str:
        how = "simulated on fake tensors" if self.simulated else "counted on real tensors"
        labels = {"optimizer": "optimizer state", "activations": "activations kept by forward", "peak": "PEAK"}
        rows = [(labels.get(f.name, f.name), getattr(self, f.name)) for f in fields(self) if f.type == "int"]
        lines = [f"  {label:<29}{readable(size):>12}" for label, size in rows]
        title = f"Training step of {self.network}, {how}"
        return "\n".join([title, *lines, "  (tensors only: no kernel workspace, no allocator reserve)"])


def readable(size: float) -> str:
    """Bytes with a unit."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} {_UNITS[-1]}"
