"""The command line: ``napari-mcm VERB ...``."""

from napari_mcm.cli.app import main

__all__ = ["main"]
