"""Where the content is that travels with the code but is not code: broker templates, model cards, scripts."""

from __future__ import annotations

from pathlib import Path

from mas_edge.protocol.errors import ServerError

_PACKAGE = Path(__file__).parent
# In a wheel the content lies inside the package, in a checkout beside it.
_ROOT = _PACKAGE / "_bundle" if (_PACKAGE / "_bundle").is_dir() else _PACKAGE.parent


def bundled(*parts: str) -> Path:
    """Return the path of a bundled file or folder, such as ``bundled("broker", "mosquitto.conf.template")``.

    Raises:
        ServerError: there is no such content: the installation is not complete.
    """
    path = _ROOT.joinpath(*parts)
    if not path.exists():
        message = f"bundled content {path} is missing: the installation of mas-edge is not complete; install it again"
        raise ServerError(message)
    return path
