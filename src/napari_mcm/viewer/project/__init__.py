"""Work that lasts: projects, the results table, and what a slide comes back with.

:class:`~napari_mcm.viewer.project.memory.SlideMemory` keeps query, threshold, features and
view of each slide and restores them when it is opened again.
:class:`~napari_mcm.viewer.project.controller.ProjectController` puts them, the slides and
the results table into a file, which it saves after each change.
"""
