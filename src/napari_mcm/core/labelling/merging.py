"""Merge the labels of several people, and list where they disagree.

A square that several people labelled has the class that most of them chose. Where there
is no majority it is left out of the merged set, so that nobody's opinion wins by chance;
it is listed with all opinions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_mcm.core.labelling.label_set import LabelSet, PatchLabel, Place


@dataclass(frozen=True)
class Disagreement:
    """A place that was labelled differently.

    Attributes
    ----------
    place : tuple
        Slide, x, y, width and height in level-0 pixels.
    labels : tuple of PatchLabel
        All opinions, in the order of the sets.
    chosen : str
        Class of the majority, which the merged set has; empty where it has none.
    """

    place: Place
    labels: tuple[PatchLabel, ...]
    chosen: str


def merge_labels(
    sets: Sequence[LabelSet],
) -> tuple[LabelSet, list[Disagreement]]:
    """Merge label sets of several people.

    Parameters
    ----------
    sets : sequence of LabelSet
        One for each person. Classes are the same where their names are; the first set
        that has a class gives it its colour and key.

    Returns
    -------
    merged : LabelSet
        One label for each place with a majority: of those that chose its class, the
        latest.
    disagreements : list of Disagreement
        Places with more than one class, with or without a majority.
    """
    opinions: dict[Place, list[PatchLabel]] = {}
    for one in sets:
        for label in one.labels:
            opinions.setdefault(label.place, []).append(label)
    merged, disagreements = [], []
    for place, labels in opinions.items():
        chosen = _majority(labels)
        if any(label.label != labels[0].label for label in labels):
            disagreements.append(Disagreement(place, tuple(labels), chosen))
        if chosen:
            voters = [label for label in labels if label.label == chosen]
            merged.append(max(voters, key=lambda label: label.made_at))
    names = {key: name for one in sets for key, name in one.slide_names.items()}
    merged.sort(key=lambda label: label.made_at)
    return replace(_classes(sets), labels=tuple(merged), slide_names=names), (
        disagreements
    )


def _majority(labels: Sequence[PatchLabel]) -> str:
    """Return the class with the most votes; empty where two have as many."""
    votes = Counter(label.label for label in labels).most_common(2)
    if len(votes) == 2 and votes[0][1] == votes[1][1]:
        return ""
    return votes[0][0]


def _classes(sets: Sequence[LabelSet]) -> LabelSet:
    """Return the classes of all sets; a key that is taken is dropped."""
    found = LabelSet()
    for one in sets:
        taken = {known.key for known in found.classes}
        for new in one.classes:
            if new.name not in found.names:
                key = None if new.key in taken else new.key
                found = found.with_class(replace(new, key=key))
    return found
