"""How exactly the chains of a network find back, layer by layer: numbers, a verdict and a picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import inf, isfinite, log10, nan
from textwrap import fill
from typing import Any

from monai_invertible.autograd.drift import REMEDY

__all__ = ["LayerSNR", "ReconstructionReport"]

SAFE, DOUBTFUL = 40.0, 20.0  # decibels: relative errors of 1e-2 and 1e-1, the limits of the drift guard
COLOURS = {"safe": "#00796b", "doubtful": "#c98500", "unsafe": "#cc3311"}


@dataclass(frozen=True)
class LayerSNR:
    """One step of a chain, and how exactly the walk back recomputed its input.

    Attributes:
        chain: name of the chain in the network.
        step: from the chain's beginning.
        layer: class of the layer, or of a coupling's branch.
        snr: mean square of the input over that of its error; infinite for none.
        lost: decibels that this step's inverse lost of the ratio after it; nan where nothing was wrong before.
    """

    chain: str
    step: int
    layer: str
    snr: float
    lost: float = nan

    @property
    def decibels(self) -> float:
        """The ratio as ``10 log10(snr)``."""
        if self.snr == inf:
            return inf
        return 10 * log10(self.snr) if self.snr > 0 else -inf

    @property
    def error(self) -> float:
        """The relative error of the input, in the 2-norm."""
        return self.snr**-0.5 if self.snr > 0 else inf

    def __str__(self) -> str:
        return f"{self.decibels:.1f} dB at the input of step {self.step} ({self.layer}) of chain '{self.chain}'"


@dataclass(frozen=True)
class ReconstructionReport:
    """What :func:`~monai_invertible.numerics.reconstruction_snr` found; ``str(report)`` says it in words.

    Attributes:
        network: name of the network's class.
        rows: one for each step that backward came back to, in the order of the forward; a chain within a branch has
            rows of its own.
    """

    network: str
    rows: list[LayerSNR]

    @property
    def worst(self) -> LayerSNR:
        """The step whose input has the smallest signal-to-noise ratio."""
        return min(self.rows, key=lambda row: row.snr)

    @property
    def verdict(self) -> str:
        """The word "safe" if the ratio is 40 dB or more everywhere, "doubtful" from 20 dB on, else "unsafe"."""
        least = self.worst.decibels
        return "safe" if least >= SAFE else "doubtful" if least >= DOUBTFUL else "unsafe"

    @property
    def lost(self) -> dict[str, float]:
        """Decibels lost by the inverses of each kind of layer together, the greatest loss first."""
        total: dict[str, float] = {}
        for row in self.rows:
            total[row.layer] = total.get(row.layer, 0.0) + (row.lost if isfinite(row.lost) else 0.0)
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        losses = ", ".join(f"{layer} {lost:.0f} dB" for layer, lost in self.lost.items() if lost >= 1)
        lines = [
            f"{self.network}: inversion is {self.verdict}",
            f"  lowest signal to noise: {self.worst}",
            f"  lost on the way back: {losses or 'nothing'}",
        ]
        return "\n".join(
            lines
            if self.verdict == "safe"
            else [*lines, fill(REMEDY, 100, initial_indent="  ", subsequent_indent="  ")]
        )

    def draw(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A Matplotlib figure of the ratios along the network, saved as ``path`` if given."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), dpi=150, layout="constrained")
        axes = figure.subplots()
        heights = [row.decibels if isfinite(row.decibels) else nan for row in self.rows]
        shown = [h for h in heights if isfinite(h)] or [SAFE]
        bottom, top = min(*shown, DOUBTFUL) - 15, max(*shown, SAFE) + 10
        for name, low, high in (("unsafe", bottom, DOUBTFUL), ("doubtful", DOUBTFUL, SAFE), ("safe", SAFE, top)):
            axes.axhspan(low, high, color=COLOURS[name], alpha=0.08, linewidth=0)
            axes.annotate(name, (1, (low + high) / 2), (-4, 0), xycoords=("axes fraction", "data"),
                          textcoords="offset points", ha="right", va="center", color=COLOURS[name])  # fmt: skip
        names = list(dict.fromkeys(row.chain for row in self.rows))
        for name in names:
            inner = any(other != name and name.startswith(f"{other}." if other else "") for other in names)
            places = [i for i, row in enumerate(self.rows) if row.chain == name]
            colour, width, label = ("#5e4fa2", 1.0, "chains in branches") if inner else ("#333333", 1.8, "chain")
            axes.plot(places, [heights[i] for i in places], ".-", color=colour, linewidth=width, label=label)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if "chains in branches" in handles:
            axes.legend(handles.values(), handles, frameon=False)
        if isfinite(self.worst.decibels):
            at = self.rows.index(self.worst)
            axes.plot(at, self.worst.decibels, "o", color=COLOURS[self.verdict], markersize=7)
        axes.set(xlabel="steps of the network (the walk back goes from right to left)", ylim=(bottom, top))
        axes.set(ylabel="signal to noise of the input, dB", xlim=(-1, 1.1 * len(self.rows)))
        axes.set_title(f"{self.network}: inversion is {self.verdict}, lowest {self.worst}", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if path is not None:
            figure.savefig(path)
        return figure
