"""Tables of what a look at a dataset found."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from eagle.console import text_table
from eagle.data.check import Inspection


def summary_table(inspections: Mapping[str, Inspection]) -> str:
    """One column a split: counts, sizes, pixel formats, labels, void and the most common class."""
    columns = [_facts(inspection) for inspection in inspections.values()]
    rows = [[fact, *(column.get(fact, "–") for column in columns)] for fact in _ordered(columns)]
    return text_table(["", *inspections], rows)


def class_shares_table(inspections: Mapping[str, Inspection]) -> str:
    """Share of every class among the labelled pixels and of void among all, by split; empty without labels."""
    shares = {split: _shares(found) for split, found in inspections.items()}
    labelled = {split: share for split, share in shares.items() if share is not None}
    if not labelled:
        return ""
    names = (*inspections[next(iter(labelled))].classes.names, "void")
    rows = [[name, *(f"{share[number]:.2%}" for share in labelled.values())] for number, name in enumerate(names)]
    return text_table(["share of pixels", *labelled], rows)


def _facts(found: Inspection) -> dict[str, str]:
    samples, classes = list(found.samples.values()), found.classes
    looked_at = len(samples) + len(found.bad)
    facts = {"images": str(found.n_images), "looked at": str(looked_at), "bad": str(len(found.bad))}
    if not samples:
        return facts
    for side, number in (("width", 0), ("height", 1)):
        least, most = (choose(sample.size[number] for sample in samples) for choose in (min, max))
        facts[side] = f"{least}" if least == most else f"{least} to {most}"
    facts["pixel formats"] = ", ".join(f"{mode} {n}" for mode, n in Counter(s.mode for s in samples).most_common())
    rotated = sum(sample.rotated for sample in samples)
    if rotated:
        facts["turned by EXIF (read as stored)"] = str(rotated)
    shares = _shares(found)
    if shares is None:
        return {**facts, "labels": "none"}
    facts["labels"] = str(len(samples))
    facts["labels all void"] = str(found.n_void())
    facts["void pixels"] = f"{shares[-1]:.1%}"
    facts["classes seen"] = f"{int((shares[:-1] > 0).sum())} of {len(classes)}"
    facts["most common class"] = f"{classes.names[shares[:-1].argmax()]} {shares[:-1].max():.1%}"
    return facts


def _shares(found: Inspection) -> np.ndarray | None:
    """By class id the share of labelled pixels, void's of all pixels last; None without labels."""
    pixels = found.class_pixels()
    if pixels is None:
        return None
    return np.append(pixels[:-1] / max(1, pixels[:-1].sum()), pixels[-1] / max(1, pixels.sum()))


def _ordered(columns: list[dict[str, str]]) -> list[str]:
    """Every fact once, in the order of the column that has most."""
    longest = max(columns, key=len)
    return [*longest, *(fact for column in columns for fact in column if fact not in longest)]
