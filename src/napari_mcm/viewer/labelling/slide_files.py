"""Feature files of the project's slides, whether or not these are open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from napari_mcm.core.project import Project, resolve_state


def feature_files(
    project: Project,
    project_file: Path | None,
    encoder: str,
    known: Mapping[str, Path] | None = None,
) -> dict[str, Path]:
    """Return the feature files of an encoder, by the fingerprint of the slide.

    Called in a thread, as paths are looked up.

    Parameters
    ----------
    project : Project
        The project.
    project_file : Path or None
        Its file, which paths are relative to.
    encoder : str
        Fingerprint of the encoder.
    known : mapping of str to Path, optional
        Files of slides that were open.
    """
    found: dict[str, Path] = dict(known or {})
    for slide in project.slides:
        if not slide.fingerprint or not slide.state.features:
            continue
        for one in resolve_state(slide.state, project_file).features.values():
            if one.encoder == encoder and one.absolute:
                found.setdefault(slide.fingerprint, Path(one.absolute))
    return found
