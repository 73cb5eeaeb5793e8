# mypy: ignore-errors
"""``micropython -m device_runtime.micro CONFIG.json``: a board on a computer, for tests and first looks."""

import sys

from device_runtime.micro.boot import main

main(sys.argv[1])
sys.exit(7)  # the device: it runs until it is switched off
