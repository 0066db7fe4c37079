"""Tables that summarise a dataset check."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from eagle.console import text_table
from eagle.data.check import Inspection


def summary_table(inspections: Mapping[str, Inspection]) -> str:
    """One column per split: image counts, sizes, pixel formats, labels, void pixels and the most common class."""
    columns = [_column(inspection) for inspection in inspections.values()]
    rows = [[fact, *(column.get(fact, "–") for column in columns)] for fact in _row_names(columns)]
    return text_table(["", *inspections], rows)


def class_shares_table(inspections: Mapping[str, Inspection]) -> str:
    """Each class's share of the labelled pixels and void's share of all pixels, by split; empty without labels."""
    shares = {split: _shares(found) for split, found in inspections.items()}
    labelled = {split: share for split, share in shares.items() if share is not None}
    if not labelled:
        return ""
    names = (*inspections[next(iter(labelled))].classes.names, "void")
    rows = [[name, *(f"{share[number]:.2%}" for share in labelled.values())] for number, name in enumerate(names)]
    return text_table(["share of pixels", *labelled], rows)


def _column(found: Inspection) -> dict[str, str]:
    samples, classes = list(found.samples.values()), found.classes
    n_checked = len(samples) + len(found.bad)
    facts = {"images": str(found.n_images), "checked": str(n_checked), "bad": str(len(found.bad))}
    if not samples:
        return facts
    for side, lengths in zip(("width", "height"), zip(*(sample.size for sample in samples), strict=True), strict=True):
        least, most = min(lengths), max(lengths)
        facts[side] = f"{least}" if least == most else f"{least} to {most}"
    facts["pixel formats"] = ", ".join(f"{mode} {n}" for mode, n in Counter(s.mode for s in samples).most_common())
    rotated = sum(sample.rotated for sample in samples)
    if rotated:
        facts["EXIF rotation (not applied)"] = str(rotated)
    shares = _shares(found)
    if shares is None:
        return {**facts, "labels": "none"}
    facts["labels"] = str(len(samples))
    facts["labels entirely void"] = str(found.n_void_labels())
    facts["void pixels"] = f"{shares[-1]:.1%}"
    facts["classes present"] = f"{int((shares[:-1] > 0).sum())} of {len(classes)}"
    facts["most common class"] = f"{classes.names[shares[:-1].argmax()]} {shares[:-1].max():.1%}"
    return facts


def _shares(found: Inspection) -> np.ndarray | None:
    """Each class's share of the labelled pixels, then void's share of all pixels; None without labels."""
    pixels = found.class_pixels()
    if pixels is None:
        return None
    return np.append(pixels[:-1] / max(1, pixels[:-1].sum()), pixels[-1] / max(1, pixels.sum()))


def _row_names(columns: list[dict[str, str]]) -> list[str]:
    """Row names in the order of the longest column, then those that only other columns have."""
    longest = max(columns, key=len)
    return [*longest, *(fact for column in columns for fact in column if fact not in longest)]
