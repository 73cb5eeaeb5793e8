#!/usr/bin/env bash
# Run the device runtime as an ARM board does: Debian's Python for that processor, in an emulator of one process
# (qemu-user). 64-bit has onnxruntime and LiteRT; 32-bit (armv7) has tflite-runtime, and NumPy from Debian.
#
#   tools/arm_smoke.sh                                   one train step against eager's answer; prints a line of JSON
#   tools/arm_smoke.sh -m device_runtime doctor          what a board would say, or anything else its Python can run
#   tools/arm_smoke.sh --armv7 [...]                     the same on 32-bit ARM
#
# For Debian 12. Packages come through this machine's apt and pip, unpacked but never installed, into a folder:
# MAS_EDGE_ARM_CACHE, else mas-edge/arm in the user's cache. They are fetched once (aarch64 150 MB, armv7 70 MB), take
# 250 MB and 160 MB, and go with `rm -r`. Needs no root. Emulation says whether something works on ARM, never how fast.
# No ExecuTorch: its runtime without PyTorch begins with Python 3.12, Debian 12 has 3.11. Nobody publishes msgspec for
# 32-bit ARM, so it is compiled: apt-get install gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
set -euo pipefail

VERSION=3.11  # of Debian 12's Python
CORES=4
PYTHON=${PYTHON:-python3}  # of this machine: reads pyproject.toml and has pip
REPOSITORY=$(cd "$(dirname "$0")/.." && pwd -P)
BOARD=aarch64
[ "${1:-}" != --armv7 ] || { BOARD=armv7; shift; }
if [ $BOARD = aarch64 ]; then
  DEBIAN=arm64 EMULATOR=qemu-aarch64-static TRIPLE=aarch64-linux-gnu ENGINE=onnxruntime
  CPU=cortex-a72  # of a Raspberry Pi 4; qemu's default has instructions that no such board has
  DEBS=(libstdc++6) EXTRAS=onnx,litert
else
  DEBIAN=armhf EMULATOR=qemu-arm-static TRIPLE=arm-linux-gnueabihf ENGINE=litert
  CPU=cortex-a7  # of a Raspberry Pi 2
  DEBS=(libstdc++6 libatomic1 python3-numpy "libpython$VERSION-dev") EXTRAS=tflite
fi

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
APT::Architecture "$DEBIAN";
APT::Architectures { "$DEBIAN"; "$NATIVE"; };
APT::Sandbox::User "$(id -un)";
Dir::State "$PWD/apt";
Dir::State::status "$PWD/apt/status";
Dir::Cache "$PWD/apt";
END
  apt-get -c apt/apt.conf -qq update >&2 ||  # one list of several may be missing while a mirror is brought up to date
    echo "apt-get could not read all of this machine's package sources (see above); going on without" >&2
  apt-get -c apt/apt.conf -qq -y --no-install-recommends --download-only \
    install "python$VERSION" "${DEBS[@]}" "qemu-user-static:$NATIVE" >&2 ||
    fail "apt-get did not get Python $VERSION for $DEBIAN and qemu-user-static (see above); Debian 12 has both"
}

# The files of a board, below root/. Its libraries read what processor they are on from /proc and /sys: told of this
# machine's, they crash. The emulator takes a file from root/ where there is one, else this machine's.
make_root() {
  local deb core
  echo "fetching Python $VERSION for $BOARD and an emulator into $PWD" >&2
  fetch_debs
  rm -rf root.part
  mkdir -p root.part/proc root.part/sys/devices/system/cpu
  for deb in apt/archives/*.deb; do
    case $deb in
      */qemu-user-static_*) dpkg-deb --fsys-tarfile "$deb" | tar -x --strip-components=3 "./usr/bin/$EMULATOR" ;;
      *) dpkg-deb -x "$deb" root.part ;;
    esac
  done
  for ((core = 0; core < CORES; core++)); do describe_core $core; done >root.part/proc/cpuinfo
  for file in possible present online; do
    echo "0-$((CORES - 1))" >"root.part/sys/devices/system/cpu/$file"
  done
  mv root.part root  # whole, or not at all
  rm -rf apt
}

describe_core() {
  if [ $BOARD = aarch64 ]; then
    printf '%s\t: %s\n' processor "$1" Features 'fp asimd evtstrm crc32 cpuid' 'CPU implementer' 0x41 \
      'CPU architecture' 8 'CPU variant' 0x0 'CPU part' 0xd08 'CPU revision' 3
  else
    printf '%s\t: %s\n' processor "$1" 'model name' 'ARMv7 Processor rev 5 (v7l)' \
      Features 'half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm' \
      'CPU implementer' 0x41 'CPU architecture' 7 'CPU variant' 0x0 'CPU part' 0xc07 'CPU revision' 5
  fi
  echo
}

# What pip would give to a board: what the project asks for, built for it and a C library up to Debian 12's 2.36.
make_packages() {
  local requirements minor platforms=(--platform manylinux2014_aarch64)
  requirements=$("$PYTHON" - "$REPOSITORY/pyproject.toml" "$EXTRAS" <<'END'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *(each for extra in sys.argv[2].split(",") for each in extras[extra]), sep="\n")
END
  )
  [ "$(cat packages/requirements.txt 2>/dev/null)" != "$requirements" ] || return 0
  echo "fetching packages for $BOARD into $PWD" >&2
  rm -rf packages.part
  mkdir packages.part
  echo "$requirements" >packages.part/requirements.txt
  if [ $BOARD = aarch64 ]; then
    for ((minor = 17; minor <= 36; minor++)); do platforms+=(--platform "manylinux_2_${minor}_aarch64"); done
    fetch_packages "${platforms[@]}" --requirement packages.part/requirements.txt
  else
    compile_msgspec "$(grep ^msgspec packages.part/requirements.txt)"
    fetch_packages --platform manylinux_2_34_armv7l --no-deps \
      "$(grep ^paho packages.part/requirements.txt)" "$(grep ^tflite packages.part/requirements.txt)"
  fi
  rm -rf packages
  mv packages.part packages
}

fetch_packages() {
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-compile --target packages.part \
    --only-binary=:all: --python-version "$VERSION" "$@" >&2 || fail "pip did not get the packages for $BOARD (see above)"
}

# For the board's Python, by this machine's: its headers before this machine's own, its name for a library.
compile_msgspec() {
  command -v $TRIPLE-gcc >/dev/null ||
    fail "$TRIPLE-gcc is not here: apt-get install gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
  [ "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = $VERSION ] ||
    fail "msgspec is compiled by Python $VERSION only; set PYTHON to one"
  rm -rf wheel
  CC=$TRIPLE-gcc LDSHARED="$TRIPLE-gcc -shared" _PYTHON_HOST_PLATFORM=linux-armv7l \
    CFLAGS="-O1 -w -I$PWD/root/usr/include/python$VERSION -I$PWD/root/usr/include" \
    SETUPTOOLS_EXT_SUFFIX=".cpython-${VERSION/./}-$TRIPLE.so" \
    "$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-binary=:all: --wheel-dir wheel "$1" >&2 ||
    fail "msgspec was not compiled (see above)"
  "$PYTHON" -m zipfile -e wheel/msgspec-*.whl packages.part
  rm -rf wheel
}

# The board's Python. A command of this machine, because it is what Python calls sys.executable: the runtime starts it
# again to test an engine. It keeps compiled modules here, and has only the packages of PYTHONPATH (-S). Its own modules
# it is told by their place on this machine: the emulator of Debian 12 does not look into root/ for statx, which is
# what 32-bit programs ask whether a file is there; so with the libraries that Debian has in folders of their own.
make_python() {
  local libraries=$PWD/root/usr/lib/$TRIPLE
  cat >root/usr/bin/emulated-python <<END
#!/bin/sh
PYTHONHOME=$PWD/root/usr
export PYTHONHOME
exec "$PWD/$EMULATOR" -cpu $CPU -0 "\$0" -L "$PWD/root" -E "LD_LIBRARY_PATH=$libraries/blas:$libraries/lapack" \\
  "$PWD/root/usr/bin/python$VERSION" -S -X "pycache_prefix=$PWD/pycache" "\$@"
END
  chmod +x root/usr/bin/emulated-python
}

cache=$(realpath -m "${MAS_EDGE_ARM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mas-edge/arm}")/$BOARD
case $cache/ in "$REPOSITORY"/*) fail "the cache $cache lies in the repository; set MAS_EDGE_ARM_CACHE" ;; esac
require_tools
NATIVE=$(dpkg --print-architecture)
caller=$PWD
mkdir -p "$cache"
cd "$cache"
[ -e root ] || make_root
make_packages
[ -e root/usr/bin/emulated-python ] || make_python
cd "$caller"

[ $# -gt 0 ] || set -- -m device_runtime.engines.selftest $ENGINE
PYTHONPATH=$REPOSITORY:$cache/packages:$cache/root/usr/lib/python3/dist-packages \
  exec "$cache/root/usr/bin/emulated-python" "$@"
