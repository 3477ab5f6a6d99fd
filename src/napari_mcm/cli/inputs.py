"""Slides named on the line: files, folders that are slides, and folders of slides."""

from __future__ import annotations

from napari_mcm.core.slides.find import find_slides as find_slides
