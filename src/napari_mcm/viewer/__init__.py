"""The napari plugin: reader, sample slide, session, layers, jobs and widgets."""
