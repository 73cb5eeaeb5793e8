"""``python -m mas_edge``: the same as the command ``mas-edge``."""

import sys

from mas_edge.cli import main

sys.exit(main())
