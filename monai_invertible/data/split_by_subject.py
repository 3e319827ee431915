"""Split a data list by subject, so that no one is both trained on and validated on."""

from __future__ import annotations

import re
from typing import Any

from monai.data.utils import partition_dataset

__all__ = ["natural_order", "split_by_subject"]

_SECTIONS = ("training", "validation", "all")


def split_by_subject(
    who: str, items: list[dict[str, Any]], section: str, fold: int, folds: int, seed: int
) -> list[dict[str, Any]]:
    """The items of a section. Subjects are shuffled and dealt to ``folds``; number ``fold`` is the validation set.

    Args:
        who: the caller, for the error messages.
        items: one a subject, with its name as "subject".
        section: "training", "validation" or "all".
        fold: 0 to ``folds`` - 1.
        folds: 2 to the number of subjects.
        seed: of the shuffle. The split depends on the names of the subjects, ``folds`` and ``seed`` only.

    Raises:
        ValueError: if ``section``, ``fold`` or ``folds`` are not as above.
    """
    if section not in _SECTIONS:
        raise ValueError(
            f"{who}: section must be one of {', '.join(map(repr, _SECTIONS))}, got {section!r}. Choose one."
        )
    if section == "all":
        return items
    if not 2 <= folds <= len(items):
        raise ValueError(
            f"{who}: folds must be 2 to the number of subjects, {len(items)}, got {folds}. "
            "Use fewer folds or more subjects."
        )
    if not 0 <= fold < folds:
        raise ValueError(f"{who}: fold must be 0 to {folds - 1}, got {fold}. Choose one of these, or more folds.")
    parts = partition_dataset([item["subject"] for item in items], num_partitions=folds, shuffle=True, seed=seed)
    return [item for item in items if (item["subject"] in parts[fold]) == (section == "validation")]


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key for ``sorted``: numbers in a name count by their value; no two names are equal."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)], name
