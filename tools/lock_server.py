"""Pin a server's environment: every package with its digest, and the same as a bill of materials.

    python tools/lock_server.py                # tools/server.lock and tools/server.cdx.json
    python tools/lock_server.py --check        # only say whether the lock fits pyproject.toml; needs no network

Asks pip what it would install for a server on this platform and Python, without installing it. The lock is
read by ``pip install --require-hashes -r``; the bill of materials is CycloneDX 1.5 (JSON).
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LOCK, BILL = HERE / "server.lock", HERE / "server.cdx.json"
# What a server needs to serve a fleet; an extra that the project does not have (yet) is passed over.
EXTRAS = ("server", "secure")


class Package(NamedTuple):
    """One file that would be installed."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def purl(self) -> str:
        """The package URL, as bills of materials name packages."""
        return f"pkg:pypi/{self.name}@{self.version}"


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for, with the project's own extras replaced by what they stand for."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    open_lines, seen, found = [*project["dependencies"]], set[str](), dict[str, Requirement]()
    names = [extra for extra in EXTRAS if extra in extras]
    while open_lines or names:
        for name in names:
            seen.add(name)
            open_lines += extras[name]
        requirement = Requirement(open_lines.pop())
        names = []
        if canonicalize_name(requirement.name) == project["name"]:
            names = [extra for extra in requirement.extras if extra not in seen]
        elif requirement.marker is None or requirement.marker.evaluate():
            found[str(requirement)] = requirement
    return [found[text] for text in sorted(found)]


def resolve(requirements: list[Requirement]) -> list[Package]:
    """What pip would install for them here, in order of their names."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--only-binary", ":all:", "--report", str(report), *map(str, requirements)]
        subprocess.run(command, check=True)
        items: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return sorted(_package(item) for item in items)


def _package(item: dict[str, Any]) -> Package:
    about = item["metadata"]
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    licence = about.get("license_expression") or about.get("license") or "not stated"
    return Package(canonicalize_name(about["name"]), about["version"], digest, licence.splitlines()[0][:80])


def lock_text(packages: list[Package]) -> str:
    """The lock file."""
    where = (
        f"{platform.system()} {platform.machine()}, Python {platform.python_version_tuple()[0]}.{sys.version_info[1]}"
    )
    lines = [f"# Made by tools/lock_server.py for {where}; install with pip install --require-hashes -r"]
    lines += [f"{one.name}=={one.version} --hash=sha256:{one.sha256}" for one in packages]
    return "\n".join(lines) + "\n"


def bill_text(packages: list[Package]) -> str:
    """The bill of materials; without a time, so that the same packages give the same file."""
    components = [
        {
            "type": "library", "name": one.name, "version": one.version, "purl": one.purl, "bom-ref": one.purl,
            "hashes": [{"alg": "SHA-256", "content": one.sha256}], "licenses": [{"license": {"name": one.licence}}],
        }
        for one in packages
    ]  # fmt: skip
    main = {"type": "application", "name": "mas-edge", "bom-ref": "mas-edge"}
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": main}}
    return json.dumps({**bill, "components": components}, indent=1) + "\n"


def locked(lock: Path) -> dict[str, str]:
    """Name and version of what a lock pins."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", lock.read_text(), re.MULTILINE))


def problems(lock: Path = LOCK) -> list[str]:
    """What pyproject.toml, or a package that it asks for, needs and the lock does not give; and what nobody needs.

    What packages need is told by those that are installed here.
    """
    held, found, seen = locked(lock), [], set[str]()
    waiting = [("pyproject.toml", requirement) for requirement in wanted()]
    while waiting:
        who, requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        version = held.get(name)
        if version is None:
            found.append(f"{name} is not pinned, {who} needs it")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{name} is pinned at {version}, {who} expects {requirement.specifier}")
        elif str(requirement) not in seen:
            waiting += [(name, needed) for needed in needs(name, requirement.extras)]
        seen |= {str(requirement), name}
    return found + [f"{name} is pinned, and nobody needs it" for name in sorted(held.keys() - seen)]


def needs(name: str, extras: set[str]) -> list[Requirement]:
    """What a package with these extras needs on this platform; nothing if it is not installed here."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    asked = [{"extra": extra} for extra in ("", *extras)]
    every = [Requirement(line) for line in lines]
    return [each for each in every if each.marker is None or any(each.marker.evaluate(extra) for extra in asked)]


def main() -> int:
    """Make both files, or check the lock."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="only say whether the lock fits")
    parser.add_argument("--lock", type=Path, default=LOCK, help="what is checked (default: %(default)s)")
    options = parser.parse_args()
    if options.check:
        found = problems(options.lock)
        print("\n".join(found) or f"{options.lock.name} fits pyproject.toml")
        return 1 if found else 0
    packages = resolve(wanted())
    LOCK.write_text(lock_text(packages))
    BILL.write_text(bill_text(packages))
    print(f"{len(packages)} packages in {LOCK.name} and {BILL.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
