"""BraTS and iSeg folders, exactly as they are distributed, as MONAI data lists, split by subject.

- BraTS 2020: one folder a subject, ``BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii.gz``.
- iSeg-2019: one folder for all, ``subject-1-{T1,T2,label}.hdr`` and ``.img`` (Analyze).

A modality may be ``.nii.gz``, ``.nii``, ``.hdr`` with ``.img``, or a folder of one DICOM series, with the same name up
to the suffix, so that images from a hospital can be segmented. Lists are made from names only: no image is read. Give
them to ``monai.data.Dataset`` or ``CacheDataset`` with the transform ``LoadSubjectd``.

Sources: Menze et al., The Multimodal Brain Tumor Image Segmentation Benchmark, IEEE TMI 34, 2015; Sun et al.,
Multi-Site Infant Brain Segmentation Algorithms: The iSeg-2019 Challenge, IEEE TMI 40, 2021.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai_invertible.data.split_by_subject import natural_order, split_by_subject

__all__ = ["brats_datalist", "iseg_datalist"]

_BRATS = ("flair", "t1", "t1ce", "t2")
_SUFFIXES = (".nii.gz", ".nii", ".hdr", "")  # "": a folder of one DICOM series


def brats_datalist(
    directory: str | os.PathLike,
    section: str = "all",
    *,
    fold: int = 0,
    folds: int = 5,
    seed: int = 0,
    labels: bool = True,
    modalities: Sequence[str] = _BRATS,
) -> list[dict[str, Any]]:
    """List the subjects of a BraTS folder, sorted by name.

    Args:
        directory: the folder that holds the subjects' folders. Other files in it are ignored.
        section: "training", "validation" or "all".
        fold: which of the folds is the validation set, 0 to ``folds`` - 1.
        folds: the subjects are shuffled and dealt to this many folds; 5 is a split of 80 % to 20 %.
        seed: of the shuffle. The split depends on the names of the subjects, ``folds`` and ``seed`` only.
        labels: False for subjects without a segmentation (inference).
        modalities: which, and their order: "flair", "t1", "t1ce", "t2". A subject need not have the others.

    Returns:
        one dictionary a subject: ``image`` (paths of the modalities), ``label`` (path, if ``labels``) and
        ``subject`` (name). All values can be written as JSON.

    Raises:
        FileNotFoundError: if the folder does not exist, or a subject lacks a modality or the label.
        ValueError: if there are no subjects, or ``section``, ``fold``, ``folds`` or ``modalities`` are not as above.
    """
    if not modalities or not set(modalities) <= set(_BRATS):
        raise ValueError(
            f"brats_datalist: modalities must be some of {', '.join(_BRATS)}, got {list(modalities)}. Choose some."
        )

    def find(root: Path) -> dict[str, str]:
        folders = [folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
        found = [f.name for f in folders if any(path.name.startswith(f"{f.name}_") for path in f.iterdir())]
        return {name: f"{name}/{name}_" for name in found}

    rule = f"a folder NAME with NAME_{modalities[0]}.nii.gz, ... for each subject"
    files = _files("brats_datalist", directory, find, rule, modalities, "seg" if labels else None)
    return split_by_subject("brats_datalist", files, section, fold, folds, seed)


def iseg_datalist(
    directory: str | os.PathLike,
    section: str = "all",
    *,
    fold: int = 0,
    folds: int | None = None,
    seed: int = 0,
    labels: bool = True,
) -> list[dict[str, Any]]:
    """List the subjects of an iSeg folder, sorted by name ("subject-10" after "subject-9").

    Args:
        directory: the folder that holds the images of all subjects. Other files in it are ignored.
        section: "training", "validation" or "all".
        fold: which of the folds is the validation set, 0 to ``folds`` - 1.
        folds: the subjects are shuffled and dealt to this many folds; None is as many as subjects (leave one out).
        seed: of the shuffle. The split depends on the names of the subjects, ``folds`` and ``seed`` only.
        labels: False for subjects without a segmentation (inference).

    Returns:
        one dictionary a subject: ``image`` (paths of T1, T2), ``label`` (path, if ``labels``) and ``subject`` (name).
        All values can be written as JSON.

    Raises:
        FileNotFoundError: if the folder does not exist, or a subject lacks a modality or the label.
        ValueError: if there are no subjects, or ``section``, ``fold`` or ``folds`` are not as above.
    """

    def find(root: Path) -> dict[str, str]:
        pattern = re.compile(r"([^.].*)-(?:T1|T2|label)(?:\.nii\.gz|\.nii|\.hdr)?")
        found = [pattern.fullmatch(path.name) for path in root.iterdir()]
        return {match[1]: f"{match[1]}-" for match in found if match}

    rule = "NAME-T1.hdr, NAME-T1.img, NAME-T2.hdr, ... for each subject"
    files = _files("iseg_datalist", directory, find, rule, ("T1", "T2"), "label" if labels else None)
    return split_by_subject("iseg_datalist", files, section, fold, len(files) if folds is None else folds, seed)


def _files(
    who: str,
    directory: str | os.PathLike,
    find: Callable[[Path], dict[str, str]],
    rule: str,
    modalities: Sequence[str],
    label: str | None,
) -> list[dict[str, Any]]:
    """One item a subject; ``find`` gives each subject's name and what stands before a modality in its paths."""
    root = Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"{who}: folder {root} does not exist. Give the folder of the data set.")
    subjects = find(root)
    if not subjects:
        inner = sorted(str(folder) for folder in root.iterdir() if folder.is_dir() and find(folder))
        hint = f"Did you mean {' or '.join(inner)}?" if inner else "Give the folder of the data set."
        raise ValueError(f"{who}: folder {root} must hold {rule}, got no subject. {hint}")
    items = []
    for name in sorted(subjects, key=natural_order):
        item: dict[str, Any] = {"image": [_path(who, root, name, subjects[name] + m) for m in modalities]}
        if label is not None:
            item["label"] = _path(who, root, name, subjects[name] + label, "; labels=False if it has no label")
        items.append({**item, "subject": name})
    return items


def _path(who: str, root: Path, subject: str, stem: str, hint: str = "") -> str:
    for suffix in _SUFFIXES:
        path = root / f"{stem}{suffix}"
        if path.is_dir() if suffix == "" else path.is_file():
            if suffix == ".hdr" and not path.with_suffix(".img").is_file():
                raise FileNotFoundError(
                    f"{who}: subject {subject} has {path.name} but no {path.with_suffix('.img').name}, which holds its "
                    f"voxels. Complete {path.parent}."
                )
            return str(path)
    path = root / stem
    there = sorted(p.name for p in path.parent.iterdir() if p.name.startswith(subject) or path.parent != root)
    raise FileNotFoundError(
        f"{who}: subject {subject} has no {path.name} (.nii.gz, .nii, .hdr with .img, or a folder of one DICOM "
        f"series), got {there}. Complete {path.parent}, or rename the file{hint}."
    )
