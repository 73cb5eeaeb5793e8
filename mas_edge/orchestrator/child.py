"""Child processes that end with us, even when we are killed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

# The shell leaves a watcher behind that waits for the end of our pipe, then becomes the child: the process that we see,
# and that a signal reaches, is the child itself.
_GUARD = 'exec 3<&0 </dev/null; (cat <&3 >/dev/null; kill -TERM $$ 2>/dev/null) & exec 3<&-; exec "$@"'


def spawn(
    command: list[str],
    name: str,
    output: IO[bytes],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output into ``output``, working in ``folder``; raises OSError if it cannot start.

    ``environment``: variables that it gets beside ours. The child has a session of its own: Ctrl-C is for us, and we
    end our children in order.
    """
    return subprocess.Popen(  # noqa: S603 - the command is ours
        [shutil.which("sh") or "/bin/sh", "-c", _GUARD, name, *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
