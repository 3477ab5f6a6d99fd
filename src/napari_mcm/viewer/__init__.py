"""The napari side: reader, sample slide, session, layers, jobs and widgets."""
