"""Folders of the Human Connectome Project (HCP) or of diffusion tensors as MONAI data lists, split by subject.

Every subject has a folder of its name. The files of the diffusion scan are in ``NAME/T1w/Diffusion``, as HCP
distributes its preprocessed data, or in ``NAME`` itself:

- ``data.nii.gz`` (the signal, 4D), ``bvals``, ``bvecs`` (text) and ``nodif_brain_mask.nii.gz``, or
- ``dti_tensor.nii.gz`` (4D, Dxx Dxy Dxz Dyy Dyz Dzz in mm^2/s, as FSL's ``dtifit --save_tensor -o dti`` writes it),
  with or without ``nodif_brain_mask.nii.gz``.

Where both are, the signal is taken. Lists are made from names only: no image is read. Give them to
``monai.data.Dataset`` or ``CacheDataset`` with the transform ``LoadDiffusionTensord``.

Source: Van Essen et al., The WU-Minn Human Connectome Project: An Overview, NeuroImage 80, 2013.
"""

from __future__ import annotations

import os
from pathlib import Path

from monai_invertible.data.split_by_subject import natural_order, split_by_subject

__all__ = ["hcp_datalist"]

_PLACES = ("T1w/Diffusion", ".")
_SIGNAL = {
    "dwi": ("data.nii.gz", "data.nii"),
    "bvals": ("bvals",),
    "bvecs": ("bvecs",),
    "mask": ("nodif_brain_mask.nii.gz", "nodif_brain_mask.nii"),
}
_TENSOR = ("dti_tensor.nii.gz", "dti_tensor.nii")


def hcp_datalist(
    directory: str | os.PathLike, section: str = "all", *, fold: int = 0, folds: int = 2, seed: int = 0
) -> list[dict[str, str]]:
    """List the subjects of a folder, sorted by name.

    Args:
        directory: the folder that holds the subjects' folders. Folders without diffusion files are ignored.
        section: "training", "validation" or "all".
        fold: which of the folds is the validation set, 0 to ``folds`` - 1.
        folds: the subjects are shuffled and dealt to this many folds; 2 makes of 15 subjects the paper's 7 to train on
            and 8 to validate on.
        seed: of the shuffle. The split depends on the names of the subjects, ``folds`` and ``seed`` only.

    Returns:
        one dictionary a subject: paths "dwi", "bvals", "bvecs" and "mask", or "tensor" and, if there is one, "mask";
        and "subject" (name). All values can be written as JSON.

    Raises:
        FileNotFoundError: if the folder does not exist, or a subject has only a part of the files.
        ValueError: if there are no subjects, or ``section``, ``fold`` or ``folds`` are not as above.
    """
    root = Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"hcp_datalist: folder {root} does not exist. Give the folder of the data set.")
    items = _subjects(root)
    if not items:
        inner = sorted(str(folder) for folder in root.iterdir() if folder.is_dir() and _subjects(folder))
        hint = f"Did you mean {' or '.join(inner)}?" if inner else "Give the folder of the data set."
        raise ValueError(
            f"hcp_datalist: folder {root} must hold a folder NAME/T1w/Diffusion or NAME with data.nii.gz, bvals, bvecs "
            f"and nodif_brain_mask.nii.gz, or dti_tensor.nii.gz, for each subject, got no subject. {hint}"
        )
    items.sort(key=lambda item: natural_order(item["subject"]))
    return split_by_subject("hcp_datalist", items, section, fold, folds, seed)


def _subjects(root: Path) -> list[dict[str, str]]:
    folders = [folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    found = [next(filter(None, (_files(folder / place) for place in _PLACES)), None) for folder in folders]
    return [{**files, "subject": folder.name} for folder, files in zip(folders, found, strict=True) if files]


def _files(place: Path) -> dict[str, str] | None:
    """The files in one folder; None if there is neither signal nor tensor."""

    def find(names: tuple[str, ...]) -> str | None:
        return next((str(place / name) for name in names if (place / name).is_file()), None)

    signal = {key: find(names) for key, names in _SIGNAL.items()}
    if signal["dwi"]:
        missing = [_SIGNAL[key][0] for key, path in signal.items() if path is None]
        if missing:
            raise FileNotFoundError(
                f"hcp_datalist: {place} has {Path(signal['dwi']).name} but no {', '.join(missing)}. Complete it; a "
                "brain mask can be made by FSL's bet or dipy's median_otsu."
            )
        return {key: str(path) for key, path in signal.items()}
    tensor = find(_TENSOR)
    if tensor is None:
        return None
    return {"tensor": tensor, "mask": signal["mask"]} if signal["mask"] else {"tensor": tensor}
