#!/usr/bin/env bash
# Runs every gate, shows the output of those that fail, and ends with one line.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
failed=()

gate() {
  local name=$1 started=$SECONDS output
  shift
  printf '%-16s' "$name"
  if output=$("$@" 2>&1); then
    printf 'ok     %3d s\n' $((SECONDS - started))
  else
    printf 'FAILED %3d s   %s\n\n%s\n\n' $((SECONDS - started)) "$*" "$output"
    failed+=("$name")
  fi
}

gate "format" "$bin/ruff" format --check .
gate "lint" "$bin/ruff" check .
gate "types" "$bin/mypy"
gate "layers" "$bin/lint-imports"
gate "house rules" "$bin/python" -m pytest -q -m "not slow" tests/repo
gate "reference" "$bin/python" tools/reference.py --check
gate "performance" "$bin/python" tools/performance.py --check
gate "widths" "$bin/python" tools/widths.py --check

if [ ${#failed[@]} -gt 0 ]; then
  (IFS=, && printf 'make check: failed: %s. make fix may mend some of it.\n' "${failed[*]}")
  exit 1
fi
echo "make check: all gates passed."
