"""The page's scripts and its styles, each joined into one answer as it is served: without a build.

A browser opens six connections, and thirty small files came in waves after one another: half of what a page took to
show itself. The modules stay files that are read, tested and debugged one by one. Their imports and exports have few
forms (``tests/web/page/test_assets.py`` holds them to these); here each module becomes a function that is called once,
after those that it imports.
"""

from __future__ import annotations

import re
from pathlib import Path

# Classic scripts, which put their names on the window; the later ones use the earlier.
LIBRARIES = ("preact.min.umd.js", "preact-hooks.umd.js", "htm.umd.js", "uPlot.iife.min.js")
STYLES = ("tokens.css", "layout.css", "parts.css", "pictures.css")
FIRST = "app.js"

_IMPORT = re.compile(r'^import (?:\{ (?P<names>[\w, ]+) \}|\* as (?P<all>\w+)) from "(?P<path>\.[\w./-]+)";$', re.M)
_EXPORT = re.compile(
    r"^export (?=(?:(?:async )?function|class) (?P<function>\w+)|const (?:(?P<const>\w+)|\{ (?P<names>[\w, ]+) \}) =)",
    re.M,
)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.M)  # of files that are not here


def join_scripts(folder: Path) -> bytes:
    """One classic script of the libraries and of all modules that ``js/app.js`` needs."""
    libraries = [_SOURCE_MAP.sub("", (folder / "vendor" / name).read_text()) for name in LIBRARIES]
    modules: dict[Path, str] = {}
    root = (folder / "js").resolve()
    _add(root, root / FIRST, modules)
    body = "\n".join(modules.values())
    return "\n".join([*libraries, f'(() => {{\n"use strict";\n{body}\n}})();\n']).encode()


def join_styles(folder: Path) -> bytes:
    """One style sheet."""
    files = [*(folder / "css" / name for name in STYLES), folder / "vendor" / "uPlot.min.css"]
    return "\n".join(file.read_text() for file in files).encode()


def _add(root: Path, path: Path, modules: dict[Path, str]) -> None:
    """Put a module into ``modules``, after those that it imports."""
    text = path.read_text()
    for found in _IMPORT.finditer(text):
        needed = (path.parent / found["path"]).resolve()
        if needed not in modules:
            _add(root, needed, modules)
    exports = ", ".join(
        name
        for found in _EXPORT.finditer(text)
        for name in (found["function"] or found["const"], found["names"])
        if name
    )
    body = _EXPORT.sub("", _IMPORT.sub(lambda found: _taken(root, path, found), text))
    where = path.relative_to(root)
    modules[path] = f"// {where}\nconst {_name(root, path)} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n"


def _taken(root: Path, path: Path, found: re.Match[str]) -> str:
    source = _name(root, (path.parent / found["path"]).resolve())
    if found["all"]:
        return f"const {found['all']} = {source};"
    names = found["names"].replace(" as ", ": ")
    return f"const {{ {names} }} = {source};"


def _name(root: Path, path: Path) -> str:
    return "$" + "_".join(path.relative_to(root).with_suffix("").parts)
