"""The page's own files: read from the package, never from a path that a client made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mas_edge.web.bundle import join_scripts, join_styles
from mas_edge.web.library import Body, marked

PAGE = Path(__file__).parent / "page"
# By suffix: what the machine's own table says differs from one machine to the next.
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css",
    ".svg": "image/svg+xml", ".json": "application/json", ".webmanifest": "application/manifest+json",
    ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2", ".txt": "text/plain",
}  # fmt: skip


class PageFiles:
    """The files below ``folder`` that a browser has a use for, by their path from the root of the site."""

    def __init__(self, folder: Path = PAGE) -> None:
        self._folder = folder
        self._joined: dict[Path, Callable[[Path], bytes]] = {}  # those that are made of others
        if (folder / "js").is_dir():
            self._joined = {folder / "page.js": join_scripts, folder / "page.css": join_styles}
        self._bodies: dict[str, tuple[int, Body]] = {}

    def find(self, path: str) -> Path | None:
        """The file behind a path such as ``/`` or ``/js/app.js``; None if there is none."""
        parts = [part for part in path.split("/") if part]
        if any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            return None
        found = self._folder.joinpath(*parts) if parts else self._folder / "index.html"
        return found if found in self._joined or (found.suffix in _TYPES and found.is_file()) else None

    def body(self, file: Path) -> Body:
        """What is in it, read again when it is another."""
        join = self._joined.get(file)
        parts = [*self._folder.rglob(f"*{file.suffix}")] if join else [file]
        changed = max(part.stat().st_mtime_ns for part in parts)
        kept = self._bodies.get(str(file))
        if kept is None or kept[0] != changed:
            data = join(self._folder) if join else file.read_bytes()
            kept = self._bodies[str(file)] = (changed, marked(data))
        return kept[1]


def type_of(file: Path) -> str:
    """The media type of one of these files."""
    return _TYPES[file.suffix]
