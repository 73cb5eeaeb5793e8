#!/usr/bin/env bash
# Run the device runtime as a 64-bit ARM board does: Debian's Python for aarch64, with onnxruntime and LiteRT, in an
# emulator of one process (qemu-user).
#
#   tools/aarch64_smoke.sh                               one train step against eager's answer; prints a line of JSON
#   tools/aarch64_smoke.sh -m device_runtime doctor      what a board would say, or anything else its Python can run
#
# For Debian 12. Packages come through this machine's apt and pip, unpacked but never installed, into a folder:
# MAS_EDGE_AARCH64_CACHE, else mas-edge/aarch64 in the user's cache. It is fetched once (150 MB), takes 250 MB, and goes
# with `rm -r`. Needs no root. Emulation says whether something works on ARM, never how fast.
# No ExecuTorch: its runtime without PyTorch begins with Python 3.12, Debian 12 has 3.11.
set -euo pipefail

VERSION=3.11    # of Debian 12's Python
CPU=cortex-a72  # of a Raspberry Pi 4; qemu's default has instructions that no such board has
CORES=4
PYTHON=${PYTHON:-python3}  # of this machine: reads pyproject.toml and has pip
REPOSITORY=$(cd "$(dirname "$0")/.." && pwd -P)

fail() { echo "error: $1" >&2; exit 2; }

require_tools() {
  command -v apt-get >/dev/null || fail "apt-get is not here; this needs Debian 12"
  command -v dpkg-deb >/dev/null || fail "dpkg is not here; this needs Debian 12"
  PYTHON=$("$PYTHON" -c 'import sys, tomllib; print(sys.executable)' 2>/dev/null) ||
    fail "PYTHON (python3 if not set) is no Python 3.11 or later"
  "$PYTHON" -m pip --version >/dev/null 2>&1 || fail "$PYTHON has no pip; set PYTHON to one that has"
}

# An apt of our own: this machine's sources and keys, but its own lists, its own archive, nothing installed yet and no
# hooks, which are for the machine's.
fetch_debs() {
  mkdir -p apt/lists/partial apt/archives/partial
  : >apt/status
  cat >apt/apt.conf <<END
#clear APT::Architectures;
#clear APT::Update;
#clear DPkg::Post-Invoke;
APT::Architecture "arm64";
APT::Architectures { "arm64"; "$NATIVE"; };
APT::Sandbox::User "$(id -un)";
Dir::State "$PWD/apt";
Dir::State::status "$PWD/apt/status";
Dir::Cache "$PWD/apt";
END
  apt-get -c apt/apt.conf -qq update >&2 || fail "apt-get could not read this machine's package sources (see above)"
  apt-get -c apt/apt.conf -qq -y --no-install-recommends --download-only \
    install "python$VERSION" libstdc++6 "qemu-user-static:$NATIVE" >&2 ||
    fail "apt-get did not get Python $VERSION for arm64 and qemu-user-static (see above); Debian 12 has both"
}

# The files of a board, below root/. Its libraries read what processor they are on from /proc and /sys: told of this
# machine's, they crash. The emulator takes a file from root/ where there is one, else this machine's.
make_root() {
  local deb core
  echo "fetching Python $VERSION for aarch64 and an emulator into $PWD" >&2
  fetch_debs
  rm -rf root.part
  mkdir -p root.part/proc root.part/sys/devices/system/cpu
  for deb in apt/archives/*.deb; do
    case $deb in
      */qemu-user-static_*) dpkg-deb --fsys-tarfile "$deb" | tar -x --strip-components=3 ./usr/bin/qemu-aarch64-static ;;
      *) dpkg-deb -x "$deb" root.part ;;
    esac
  done
  for ((core = 0; core < CORES; core++)); do
    printf '%s\t: %s\n' processor $core Features 'fp asimd evtstrm crc32 cpuid' 'CPU implementer' 0x41 \
      'CPU architecture' 8 'CPU variant' 0x0 'CPU part' 0xd08 'CPU revision' 3
    echo
  done >root.part/proc/cpuinfo
  for file in possible present online; do
    echo "0-$((CORES - 1))" >"root.part/sys/devices/system/cpu/$file"
  done
  mv root.part root  # whole, or not at all
  rm -rf apt
}

# What pip would give to a board: what the project asks for, built for aarch64 and a C library up to Debian 12's 2.36.
make_packages() {
  local requirements minor platforms=(--platform manylinux2014_aarch64)
  requirements=$("$PYTHON" - "$REPOSITORY/pyproject.toml" <<'END'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["onnx"], *extras["litert"], sep="\n")
END
  )
  [ "$(cat packages/requirements.txt 2>/dev/null)" != "$requirements" ] || return 0
  echo "fetching packages for aarch64 into $PWD" >&2
  for ((minor = 17; minor <= 36; minor++)); do platforms+=(--platform "manylinux_2_${minor}_aarch64"); done
  rm -rf packages.part
  mkdir packages.part
  echo "$requirements" >packages.part/requirements.txt
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-compile --target packages.part \
    --only-binary=:all: --python-version "$VERSION" "${platforms[@]}" --requirement packages.part/requirements.txt >&2 ||
    fail "pip did not get the packages for aarch64 (see above)"
  rm -rf packages
  mv packages.part packages
}

# The board's Python. A command of this machine, because it is what Python calls sys.executable: the runtime starts it
# again to test an engine. It keeps compiled modules here, and has only the packages of PYTHONPATH (-S).
make_python() {
  cat >root/usr/bin/emulated-python <<END
#!/bin/sh
exec "$PWD/qemu-aarch64-static" -cpu $CPU -0 "\$0" -L "$PWD/root" "$PWD/root/usr/bin/python$VERSION" \\
  -S -X "pycache_prefix=$PWD/pycache" "\$@"
END
  chmod +x root/usr/bin/emulated-python
}

cache=$(realpath -m "${MAS_EDGE_AARCH64_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mas-edge/aarch64}")
case $cache/ in "$REPOSITORY"/*) fail "the cache $cache lies in the repository; set MAS_EDGE_AARCH64_CACHE" ;; esac
require_tools
NATIVE=$(dpkg --print-architecture)
caller=$PWD
mkdir -p "$cache"
cd "$cache"
[ -e root ] || make_root
make_packages
[ -e root/usr/bin/emulated-python ] || make_python
cd "$caller"

[ $# -gt 0 ] || set -- -m device_runtime.engines.selftest onnxruntime
PYTHONPATH=$REPOSITORY:$cache/packages exec "$cache/root/usr/bin/emulated-python" "$@"
