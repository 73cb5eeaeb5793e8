#!/bin/sh
# Print the path of a Python 3.12 or later that runs here, and nothing if there is none.
# ExecuTorch's runtime without PyTorch has no build for Python 3.11.
runs() { "$1" -c 'import sys, venv; print(sys.executable) if sys.version_info >= (3, 12) else sys.exit(1)' 2>/dev/null; }
for name in python3.12 python3.13 python3.14; do
  runs "$name" && exit 0
done
if command -v pyenv >/dev/null; then
  for version in 3.12 3.13 3.14; do
    prefix=$(pyenv prefix "$(pyenv latest "$version" 2>/dev/null)" 2>/dev/null) && runs "$prefix/bin/python3" && exit 0
  done
fi
exit 0
