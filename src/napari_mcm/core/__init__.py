"""The engine: no Qt, no napari, no printing."""
