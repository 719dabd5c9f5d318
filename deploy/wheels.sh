#!/usr/bin/env bash
# dist/: the sources, a wheel with the compiled decoder for each Rust target that is installed here, and one without it, which
# pip takes everywhere else. Zig links against the C library of 2014, so that a wheel made on any Linux runs on all of them.
#
#   deploy/wheels.sh PYTHON OUT        PYTHON has build, ziglang and auditwheel; `make wheels` sees to that
set -euo pipefail
python=$1 out=$2
home=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$out" "$work/plain"
"$python" -m build --quiet --sdist --outdir "$out" "$home"
sources=$(ls -t "$out"/tailrace-*.tar.gz | head -n 1)

tar -xzf "$sources" -C "$work/plain" --strip-components 1
"$python" - "$work/plain/pyproject.toml" <<'PYTHON'
import re, sys
from pathlib import Path

path = Path(sys.argv[1])
text = re.sub(r"(?ms)^\[\[tool\.setuptools-rust.*?(?=^\[tool\.ruff)", "", path.read_text())
path.write_text(text)
PYTHON
"$python" -m build --quiet --wheel --outdir "$out" "$work/plain"

for target in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu; do
  machine=${target%%-*}
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || { echo "no Rust for $target here: no wheel for it"; continue; }
  # zstd is C, and what compiles it names the target too, in words that Zig does not take.
  cat > "$work/compiler" <<SH
#!/bin/sh
for word; do shift; case \$word in --target=*) ;; *) set -- "\$@" "\$word" ;; esac; done
exec "$python" -m ziglang cc -target $machine-linux-gnu.2.17 "\$@"
SH
  printf '#!/bin/sh\nexec "%s" -m ziglang ar "$@"\n' "$python" > "$work/archiver"
  chmod +x "$work/compiler" "$work/archiver"
  name=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_LINKER
  env "$name=$work/compiler" "CC_${target//-/_}=$work/compiler" "AR_${target//-/_}=$work/archiver" \
    CARGO_BUILD_TARGET="$target" CARGO_TARGET_DIR="$work/target" \
    "$python" -m build --quiet --wheel --outdir "$work" \
    "--config-setting=--build-option=--plat-name=manylinux2014_$machine" "$home"
  "$python" -m auditwheel show "$work"/tailrace-*_"$machine".whl | grep -q '"manylinux_2_17_'
  unzip -l "$work"/tailrace-*_"$machine".whl | grep -q '_lines.*\.so'
  mv "$work"/tailrace-*_"$machine".whl "$out"
done
ls -l "$out"
