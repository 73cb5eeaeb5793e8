"""Look through the built documentation: every link inside it leads somewhere, and nothing is loaded from elsewhere.

    python tools/check_site.py build/site

Ends with 1 and a line for each fault. Links for people to other places are left alone: a reader may be offline.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself when it opens a page.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("object", "data")}


class Page(HTMLParser):
    """What one page links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's addresses."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif (tag, name) in LOADED and value:
                self.loads.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)


def faults(site: Path) -> Iterator[str]:
    """A line for each thing that is wrong."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} holds no page: run `make docs`"
    for path, page in pages.items():
        where = path.relative_to(site)
        for address in page.loads + page.links:
            parts = urlsplit(address)
            if parts.scheme == "data" or ((parts.scheme or parts.netloc) and address not in page.loads):
                continue
            if parts.scheme or parts.netloc:
                yield f"{where} loads {address} from elsewhere"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                yield f"{where} links to {address}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where} links to {address}, and there is no such place on that page"


def main(arguments: list[str]) -> int:
    """Print what is wrong with the site in the folder that is named."""
    found = list(faults(Path(arguments[0]).resolve()))
    print("\n".join(found) or "every link leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
