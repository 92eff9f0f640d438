#!/usr/bin/env bash
# Runs one gate under its name: `gate.sh NAME COMMAND...`; quiet when it passes, loud when not.
set -uo pipefail
name=$1
shift
started=$SECONDS
printf '%-16s' "$name"
if output=$("$@" 2>&1); then
  printf 'ok     %3d s\n' $((SECONDS - started))
else
  status=$?
  printf 'FAILED %3d s\n\n%s\n\ngate failed: %s (%s)\n' $((SECONDS - started)) "$output" "$name" "$*"
  exit "$status"
fi
