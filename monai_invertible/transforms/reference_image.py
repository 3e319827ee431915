"""The training target: the complex image of k-space before under-sampling, x = FFT^-1(kspace)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

from monai_invertible.operators import FourierSampling

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
            kspace, sensitivities = d[key], d.get(self.sensitivities_key)
            if sensitivities is None and kspace.shape[0] > 1:
                raise ValueError(
                    f'ReferenceImaged: combining {kspace.shape[0]} coils needs "{self.sensitivities_key}", got none. '
                    'Add the coil sensitivities, or train on the magnitude "reference" of the file.'
                )
            everywhere = kspace.new_ones((1,) * (kspace.ndim + 1))  # a mask
            maps = None if sensitivities is None else sensitivities[None]
            d[self.target_key] = FourierSampling().adjoint(kspace[None], everywhere, maps)[0].contiguous()
        return d
