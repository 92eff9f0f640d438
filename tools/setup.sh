#!/usr/bin/env bash
# Prepares a bare machine, one step a call: `setup.sh serve`, `setup.sh dev`, `setup.sh peers`,
# `setup.sh font`, `setup.sh postgres`, `setup.sh browser`.
# Reads PYTHON (interpreter to use), VENV (folder), TORCH_INDEX_URL (another index for torch).
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
TORCH=$(grep '^torch==' constraints.txt)
EMOJI_FONT=/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf

main() {
  case "${1:-}" in
    serve)
      make_environment
      install_packages '.[openvino]'
      ;;
    dev)
      make_environment
      install_packages '.[train,dev,openvino]'
      install_old_client
      ;;
    peers)
      make_environment
      install_peers
      ;;
    font) ensure_font ;;
    postgres) offer_postgres ;;
    browser) offer_browser ;;
    *) fail "Usage: tools/setup.sh serve|dev|peers|font|postgres|browser" ;;
  esac
}

make_environment() {
  if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  local python
  python=$(find_python)
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    step "Python's venv module is missing"
    install_system_package "python$(version_of "$python")-venv" ||
      fail "$python cannot make virtual environments. Install that part, then run make again:" \
        "  sudo apt-get install python$(version_of "$python")-venv"
  fi
  step "Creating $VENV with $("$python" --version)"
  "$python" -m venv --clear "$VENV"
}

find_python() {
  local candidates=(python3.11 python3.12 python3.13 python3) candidate
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "No Python 3.11 or newer among: ${candidates[*]}. Either" \
    "  sudo apt-get install python3 python3-venv      (Debian 12, Ubuntu 24.04 or newer), or" \
    "  make ... PYTHON=/path/to/python3.11"
}

version_of() {
  "$1" -c 'import sys; print("{}.{}".format(*sys.version_info))'
}

install_packages() {
  install_torch
  step "Installing Fewstroke: $1"
  pip_install -c constraints.txt -e "$1"
  step "Ready: $VENV ($(du -sm "$VENV" | cut -f1) MB)"
}

install_peers() {
  install_torch
  step "Installing the peers of the benchmarks"
  pip_install -r benchmarks/peers/requirements.txt
  step "Ready: $VENV ($(du -sm "$VENV" | cut -f1) MB)"
}

install_old_client() {
  # the newest client is a dependency; tests want to know that an older one is served, too
  local folder="$VENV/old-openai"
  [ -d "$folder/openai" ] || pip_install --target "$folder" openai==2.0.0
}

install_torch() {
  local index=()
  [ -z "${TORCH_INDEX_URL:-}" ] || index=(--index-url "$TORCH_INDEX_URL")
  # torch goes first: resolved together with the rest, pip may pick a build several times as large.
  step "Installing $TORCH (the largest part)"
  pip_install "${index[@]}" "$TORCH"
}

pip_install() {
  "$VENV/bin/python" -m pip --disable-pip-version-check install "$@"
}

ensure_font() {
  [ -f "$EMOJI_FONT" ] && return
  step "The Noto Color Emoji font is missing: the tests draw with it"
  install_system_package fonts-noto-color-emoji ||
    fail "The tests need the Noto Color Emoji font. Install it, then run make again:" \
      "  sudo apt-get install fonts-noto-color-emoji"
}

# Not needed: without it, what runs on both databases is tested on SQLite alone, and says so.
offer_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
  command -v initdb >/dev/null && return
  step "PostgreSQL's server programs are missing: tests of batches run on them too"
  install_system_package postgresql ||
    step "Tests on PostgreSQL will be skipped. To have them: sudo apt-get install postgresql"
}

# Not needed either: without it, the studio's page is not tested, and the tests say so.
offer_browser() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && return
  done
  step "Chromium is missing: tests of the studio's page run in it"
  install_system_package chromium ||
    step "Tests of the studio will be skipped. To have them: sudo apt-get install chromium"
}

# Only where nobody is asked for a password; otherwise the caller says what to type.
install_system_package() {
  local sudo=()
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || return 1
    sudo=(sudo -n)
  fi
  step "Installing the Debian package $1"
  "${sudo[@]}" apt-get update -q </dev/null
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$1" </dev/null
}

step() {
  printf '\n== %s\n' "$1" >&2
}

fail() {
  printf '\nerror: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '%s\n' "$@" >&2
  exit 1
}

main "$@"
