"""Merge the labels of several people, and list where they disagree.

A square that several people labelled has the class that most of them chose. Where there
is no majority it is left out of the merged set, so that nobody's opinion wins by chance;
it is listed with all opinions.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.labelling.config import MergeLabelsConfig
from napari_mcm.core.labelling.files import read_labels, write_labels
from napari_mcm.core.labelling.label_set import LabelSet, PatchLabel, Place
from napari_mcm.core.runtime.files import write_text


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


def merge_files(config: MergeLabelsConfig) -> tuple[LabelSet, list[Disagreement]]:
    """Merge label files, and write what they agree on and where they differ.

    Parameters
    ----------
    config : MergeLabelsConfig
        Files to read and to write.

    Returns
    -------
    merged : LabelSet
        What was written.
    disagreements : list of Disagreement
        Places with more than one class.

    Raises
    ------
    ConfigError
        If fewer than two files are given, or no output.
    LabelError
        If a file cannot be read.
    McmError
        If a file cannot be written.
    """
    if len(config.labels) < 2 or config.out is None:
        raise ConfigError(
            "two label files or more, and --out, are needed",
            hint="See napari-mcm labels merge --help",
        )
    merged, differing = merge_labels([read_labels(path) for path in config.labels])
    write_labels(config.out, merged)
    if config.disagreements is not None:
        write_text(config.disagreements, _as_csv(merged, differing))
    return merged, differing


def _as_csv(merged: LabelSet, differing: Sequence[Disagreement]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["slide", "fingerprint", "x", "y", "width", "height"]
    writer.writerow([*columns, "author", "class", "made_at", "chosen"])
    for one in differing:
        slide = merged.slide_name(one.place[0])
        for label in one.labels:
            opinion = [label.author, label.label, label.made_at, one.chosen]
            writer.writerow([slide, *one.place, *opinion])
    return text.getvalue()
