"""``python -m device_runtime``: the same as the command ``mas-edge-device``."""

import sys

from device_runtime.cli import main

sys.exit(main())
