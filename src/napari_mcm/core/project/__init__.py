"""Projects: slides, their features, queries and results in one small file.

A project is a JSON file, ``NAME.mcm.json``. It names slides and feature files by paths
relative to itself, with their fingerprints: files that were moved are found again, and
others are not mistaken for them. The slides and features themselves stay where they are.
"""

from napari_mcm.core.project.file import (
    ENDING,
    backup_of,
    keep_backup,
    read_project,
    thumbnail_of,
    write_project,
)
from napari_mcm.core.project.model import (
    Project,
    ProjectRegistration,
    ProjectRun,
    ProjectSlide,
    SavedFeatures,
    SavedQuery,
    SavedView,
    SlideState,
)
from napari_mcm.core.project.paths import (
    find_existing,
    find_moved,
    locate,
    place_beside,
)
from napari_mcm.core.project.rebase import rebase, resolve_state, store_state
from napari_mcm.core.project.results import ResultRow, as_tsv, write_results
from napari_mcm.core.runtime.files import stamp_of

__all__ = [
    "ENDING",
    "Project",
    "ProjectRegistration",
    "ProjectRun",
    "ProjectSlide",
    "ResultRow",
    "SavedFeatures",
    "SavedQuery",
    "SavedView",
    "SlideState",
    "as_tsv",
    "backup_of",
    "find_existing",
    "find_moved",
    "keep_backup",
    "locate",
    "place_beside",
    "read_project",
    "rebase",
    "resolve_state",
    "stamp_of",
    "store_state",
    "thumbnail_of",
    "write_project",
    "write_results",
]
