"""``python -m napari_mcm.cli``, where no script is installed."""

import sys

from napari_mcm.cli import main

sys.exit(main())
