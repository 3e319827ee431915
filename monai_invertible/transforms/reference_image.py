"""The training target: the complex image of k-space before under-sampling, x = FFT^-1(kspace)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.networks.blocks.fft_utils_t import ifftn_centered_t
from monai.transforms.transform import MapTransform

__all__ = ["ReferenceImaged"]


class ReferenceImaged(MapTransform):
    """Write the complex image of fully sampled k-space as ``target``, its real and imaginary part as channels.

    (coils, \\*spatial, 2) -> (2, \\*spatial), in the same unit; the k-space stays as it is.

    Several coils are combined by their sensitivities S: x = sum_c conj(S_c) x_c, the least squares image if sum_c
    |S_c|^2 = 1.

    Args:
        keys: the k-space, fully sampled; the inverse FFT (orthonormal, centred) is over rows and columns.
        target_key: where the image is written.
        sensitivities_key: the coil sensitivities (coils, \\*spatial, 2); needed for more than one coil.
        allow_missing_keys: as in MONAI.

    Raises:
        ValueError: if the data are under-sampled, or have several coils and no sensitivities.
    """

    def __init__(
        self,
        keys: KeysCollection = "kspace",
        target_key: str = "target",
        sensitivities_key: str = "sensitivities",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.target_key = target_key
        self.sensitivities_key = sensitivities_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if "mask" in d:
            raise ValueError(
                "ReferenceImaged: the target needs fully sampled k-space, got data with a mask "
                f"({d.get('filename', 'no file name')}). Put it before UndersampleKspaced; test volumes have no target."
            )
        for key in self.key_iterator(d):
            image = torch.view_as_complex(ifftn_centered_t(d[key], spatial_dims=2).contiguous())
            if self.sensitivities_key in d:
                image = image * torch.view_as_complex(d[self.sensitivities_key].contiguous()).conj()
            elif image.shape[0] > 1:
                raise ValueError(
                    f'ReferenceImaged: combining {image.shape[0]} coils needs "{self.sensitivities_key}", got none. '
                    'Add the coil sensitivities, or train on the magnitude "reference" of the file.'
                )
            d[self.target_key] = torch.view_as_real(image.sum(0)).movedim(-1, 0).contiguous()
        return d
