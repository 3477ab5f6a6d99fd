"""Run the command line as ``python -m napari_mcm.cli``."""

import sys

from napari_mcm.cli import main

sys.exit(main())
