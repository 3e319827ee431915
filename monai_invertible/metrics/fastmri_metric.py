"""NMSE, PSNR and SSIM of whole volumes, as fastMRI defines them, from slices that arrive in any order and on any
process.

For a volume x (reference) and y (reconstruction), both magnitudes cropped to the square of the reference's width:

    NMSE = |x - y|^2 / |x|^2        PSNR = 10 log10( max(x)^2 / mean((x - y)^2) )        SSIM = mean over slices, data
    range max(x)

Each is a function of sums over slices, once max(x) is known (the file's attribute ``max``). So only seven numbers a
slice are kept, never a volume, and they are what the processes exchange. Source: ``fastmri.evaluate``; Zbontar et al.,
arXiv 1811.08839, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.metric import Cumulative

from monai_invertible.metrics.central_region import central_region
from monai_invertible.metrics.volume_key import volume_key
from monai_invertible.operators import magnitude

__all__ = ["FastMRIMetric"]


class FastMRIMetric(Cumulative):
    """One of fastMRI's three scores: a value a volume, and their mean.

    ``metric(image, reference, filename=..., slice_index=..., maximum=...)`` adds a batch; ``get_buffer()`` gives the
    volumes' values (volumes, 1), in the order of ``volume_key``; ``aggregate()`` their mean; ``reset()`` starts
    again. In a distributed run both gather all processes first; a slice that a sampler has repeated counts once.

    Args:
        metric: "nmse", "psnr" (dB) or "ssim".

    Raises:
        ValueError: if shapes do not fit, or the SSIM of a slice is asked for without its volume's maximum.
    """

    def __init__(self, metric: str = "ssim") -> None:
        super().__init__()
        if metric not in ("nmse", "psnr", "ssim"):
            raise ValueError(f'FastMRIMetric: metric must be "nmse", "psnr" or "ssim", got {metric!r}. Choose one.')
        self.metric = metric

    def __call__(
        self,
        image: torch.Tensor,
        reference: torch.Tensor,
        filename: Sequence[str],
        slice_index: Sequence[int] | torch.Tensor,
        maximum: Sequence[float] | torch.Tensor | None = None,
    ) -> None:
        """Add a batch of slices or volumes.

        Args:
            image: complex (B, 2, \\*spatial) or magnitude (B, 1, \\*spatial), \\*spatial = ([slices,] rows, columns);
                cropped to the reference.
            reference: likewise; its size is what is compared.
            filename: the volume of each item.
            slice_index: the index of each item's first slice.
            maximum: the largest value of each whole reference volume; needed for the SSIM of slices. 0 means not
                known; the maximum of the slices seen serves for PSNR then, and of the item itself, if it is a volume,
                for SSIM.
        """
        x = magnitude(reference.detach().cpu().double())
        x = central_region(x, (x.shape[-1], x.shape[-1]))
        y = central_region(magnitude(image.detach().cpu().double()), x.shape[-2:])
        if x.shape[1] != 1 or x.shape != y.shape:
            raise ValueError(
                "FastMRIMetric: image and reference must be complex (B, 2, *spatial) or magnitudes (B, 1, *spatial) of "
                f"the same slices, got {tuple(image.shape)} and {tuple(reference.shape)}. The image must be at least "
                "as large as the reference."
            )
        for item, name in enumerate(filename):
            known = 0.0 if maximum is None else float(maximum[item])
            peak = known if known > 0 or x.ndim == 4 else float(x[item].max())
            if self.metric == "ssim" and peak <= 0:
                raise ValueError(
                    f"FastMRIMetric: the SSIM of a slice needs the maximum of its volume, got {known} for {name}. "
                    "Pass maximum, or whole volumes."
                )
            volume = volume_key(name)
            for offset, (a, b) in enumerate(zip(x[item].flatten(0, -3), y[item].flatten(0, -3), strict=True)):
                sums = [float((a - b).square().sum()), float(a.square().sum()), a.numel(), known or float(a.max())]
                ssim = self._ssim(a, b, peak) if self.metric == "ssim" else 0.0
                row = [volume, int(slice_index[item]) + offset, *sums, ssim]
                self.append(torch.tensor(row, dtype=torch.float64))

    @staticmethod
    def _ssim(reference: torch.Tensor, image: torch.Tensor, peak: float) -> float:
        from fastmri.evaluate import ssim

        return float(ssim(reference[None].numpy(), image[None].numpy(), maxval=peak)[0])

    def get_buffer(self) -> torch.Tensor | None:
        """The value of every volume, (volumes, 1) float64; None before the first batch."""
        rows = super().get_buffer()
        if rows is None:
            return None
        rows = rows.cpu().numpy()
        rows = rows[np.unique(rows[:, :2], axis=0, return_index=True)[1]]
        values = []
        for volume in np.unique(rows[:, 0]):
            _, _, error, energy, count, peak, ssim = rows[rows[:, 0] == volume].T
            if self.metric == "nmse":
                values.append(error.sum() / energy.sum())
            elif self.metric == "psnr":
                values.append(10.0 * np.log10(peak.max() ** 2 * count.sum() / error.sum()))
            else:
                values.append(ssim.mean())
        return torch.tensor(values, dtype=torch.float64)[:, None]

    def aggregate(self) -> torch.Tensor:
        """The mean over the volumes.

        Raises:
            ValueError: before the first batch.
        """
        values = self.get_buffer()
        if values is None:
            raise ValueError("FastMRIMetric: there must be a batch before aggregate, got none. Call the metric first.")
        return values.mean()
