"""The documentation as a static site: `make docs` in the checkout's root, which is Sphinx's source folder.

So pages that stand beside the code belong to it, with the links that they have anyway. The reference is made of the
docstrings of every module that can be imported without a converter's environment, and of what the commands say of
themselves.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.config import Config

import device_runtime.cli
import mas_edge
import mas_edge.cli

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFERENCE = HERE / "reference"  # made anew each time, not committed

project = "mas-edge"
html_title = "mas-edge"
html_theme = "furo"
html_copy_source = False
html_search_scorer = str(HERE / "scorer.js")  # it looks in the working directory otherwise
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/site/index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
include_patterns = ["docs/**", "*.md", "broker/**.md", "models/**.md", "tools/**.md"]
exclude_patterns = [".*", ".*/**", "build", "demo-out"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
toc_object_entries = False  # a list of every function beside every page took longer than all the rest
python_use_unqualified_type_names = True
# Words for fences whose text no lexer knows.
highlight_language = "text"

# Names of ours that occur twice (Layout, Limits, Progress) are told apart by who reads the module beside them.
suppress_warnings = ["ref.python"]

# Run on a board or in another environment: MicroPython, and converters that are not installed beside the rest.
ELSEWHERE = ("mas_edge.cli", "device_runtime.cli")  # commands: a page of their own, made of --help
UNIMPORTABLE = ("device_runtime.micro", "mas_edge.export.litert", "mas_edge.export.micro")
# The headings of fields that Napoleon knows; and what else would be markup: *, | or a last _, outside ``code``.
FIELDS = ("Raises", "Args", "Returns", "Yields", "Attributes", "Example", "Examples", "Note", "Returns the")
MARKUP = re.compile(r"(?<!`)(\*|\||(?<=\w)_(?!\w))(?=(?:[^`]|``[^`]*``)*$)")
ROOMS = {"mas_edge": "The server side", "device_runtime": "The device"}
COMMANDS = {"mas-edge": mas_edge.cli.build_parser, "mas-edge-device": device_runtime.cli.build_parser}
WIDTH = "100"  # columns of what --help prints: as many as a block has on a desk


def modules(package: str) -> list[str]:
    """The public modules of a package, by name."""
    paths = sorted((ROOT / package).rglob("*.py"))
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in dotted if not name.startswith(UNIMPORTABLE + ELSEWHERE) and "._" not in name]


def _is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).is_dir()


def public_names() -> list[str]:
    """Where each public name is described."""
    homes = {name: getattr(mas_edge, name).__module__ for name in mas_edge.__all__}
    return ["Public names:", "", *(f"* :py:obj:`{name} <{home}.{name}>`" for name, home in homes.items()), ""]


def sub_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The verbs of a command."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def told(parser: argparse.ArgumentParser, mark: str) -> list[str]:
    """What ``--help`` prints, below a heading that is underlined by ``mark``; then the same of its verbs."""
    text = ["", *(f"   {line}".rstrip() for line in parser.format_help().splitlines()), ""]
    lines = [parser.prog, mark * len(parser.prog), "", "::", *text]
    for verb in sub_parsers(parser).values():
        lines += told(verb, "~" if mark == "-" else "-")
    return lines


def write_commands() -> None:
    """A page of all commands."""
    os.environ["COLUMNS"] = WIDTH
    title = "Commands and their options"
    lines = [title, "=" * len(title), "", "What ``--help`` says after each of them.", ""]
    for make in COMMANDS.values():
        lines += told(make(), "-")
    (REFERENCE / "commands.rst").write_text("\n".join(lines), encoding="utf-8")


def write_reference(_app: Sphinx, _config: Config) -> None:
    """A page for each room, with the modules in it, and one of the commands."""
    shutil.rmtree(REFERENCE, ignore_errors=True)
    REFERENCE.mkdir()
    write_commands()
    for package in ROOMS:
        rooms: dict[str, list[str]] = {}
        for name in modules(package):
            parts = name.split(".")
            room = parts[1] if len(parts) > 1 and (ROOT / package / parts[1]).is_dir() else ""
            rooms.setdefault(room, []).append(name)
        for room, names in rooms.items():
            title = f"{package}.{room}" if room else package
            lines = [title, "=" * len(title), ""]
            for name in names:
                # What a package hands on is described where it is made; a module's own names are all in the reference.
                members = ["   :members:", *(["   :ignore-module-all:"] if _is_package(name) else [])]
                lines += [name, "-" * len(name), "", f".. automodule:: {name}", *members, ""]
                lines += public_names() if name == "mas_edge" else []
            (REFERENCE / f"{title}.rst").write_text("\n".join(lines), encoding="utf-8")


def as_rst(_app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Our docstrings are plain text with ``code``: what reStructuredText would take for markup is escaped.

    An indented part that is no list of errors is a drawing or an equation, and stays as it is.
    """
    found: list[str] = []
    in_fields = drawing = False
    for line in lines:
        indented = line.startswith(" ")
        if line and not indented:
            in_fields, drawing = line.rstrip(":") in FIELDS, False
        if indented and not in_fields and not drawing:
            found += ([""] if found and found[-1] else []) + ["::", ""]
            drawing = True
        elif line and not indented and found and found[-1].startswith(" ") and not in_fields:
            found.append("")
        found.append(line if drawing else MARKUP.sub(r"\\\1", line))
    # Of a property, Napoleon would take what stands before a first line's colon for its type.
    lines[:] = ["", *found] if what in ("attribute", "property", "data") else found


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    for language in ("csv", "hex", "safetensors"):  # fences whose text is plain
        app.add_lexer(language, TextLexer)
    app.connect("config-inited", write_reference)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before Napoleon's, which reads the fields
