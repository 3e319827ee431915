"""Data sets as their owners distribute them, and sample sets in the same formats."""

from __future__ import annotations

from monai_invertible.data.fastmri_dataset import fastmri_datalist, fastmri_masks, open_fastmri
from monai_invertible.data.ismrmrd_header import parse_ismrmrd_header

__all__ = ["fastmri_datalist", "fastmri_masks", "open_fastmri", "parse_ismrmrd_header"]
