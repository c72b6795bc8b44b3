#!/usr/bin/env bash
# tools/install.sh: system programs and requirements.lock -> .venv, with every file's hash checked.
#
# Safe to call at any time: it does only what is missing, and a killed call is finished by the next one, because
# the lock's own hash is written into .venv last. path.sh calls it when there is no environment or another lock's.
# PYTHON names the interpreter when it has an unusual name or place; COSYTUNE_LOCK another lock, for the slim image.
# tools/install.sh --programs installs the system programs alone.
# tools/install.sh --cluster adds what shards.launcher=ray needs; another lock's environment is without it again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
lock=$root/${COSYTUNE_LOCK:-requirements.lock}
stamp=$venv/requirements.lock.sha256

has_header='import pathlib, sysconfig; assert pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file()'

say() { printf 'install: %s\n' "$1" >&2; }
stop() { printf 'error: %s\n' "$1" >&2; exit 1; }

main() {
  exec 9< "$root/tools"  # two terminals may start at once: the second waits for the first
  flock 9
  install_system_programs
  if [[ ${1:-} == --programs ]]; then return; fi
  if [[ $(cat "$stamp" 2> /dev/null) == "$(sha256sum < "$lock")" ]]; then
    say "$venv is as ${lock##*/} says"
  else
    install_lock
  fi
  if [[ ${1:-} == --cluster ]]; then install_cluster; fi
}

install_lock() {
  make_venv
  install_uv
  say "packages of ${lock##*/} -> $venv (the whole takes a few minutes and 9 GB the first time)"
  uv_pip sync --require-hashes "$lock"
  say "checking that every package imports"
  PYTHONPATH=$root/tools "$venv/bin/python" -m cosytune.environment >&2
  sha256sum < "$lock" > "$stamp"
}

install_cluster() {
  say "packages of requirements.cluster.lock -> $venv"
  uv_pip install --no-deps --require-hashes --requirement "$root/requirements.cluster.lock"
  PYTHONPATH=$root/tools "$venv/bin/python" -c 'import ray.data' >&2
}

uv_pip() {  # uv_pip COMMAND ARGUMENTS...: in the environment
  local mirror=()  # uv does not read pip's files, where a company's mirror or certificate is written
  mapfile -d '' -t mirror < <(PYTHONPATH=$root/tools "$venv/bin/python" -m cosytune.pip_settings)
  env DS_BUILD_OPS=0 "${mirror[@]}" "$venv/bin/uv" pip "$1" --python "$venv/bin/python" "${@:2}" >&2
}

install_system_programs() {
  local packages=()
  command -v sox > /dev/null || packages+=(sox)
  [[ $(sox --help 2> /dev/null) == *' mp3 '* ]] || packages+=(libsox-fmt-all)
  command -v ffmpeg > /dev/null || packages+=(ffmpeg)
  command -v g++ > /dev/null || packages+=(g++)
  command -v git > /dev/null || packages+=(git ca-certificates)
  if ! find_python; then
    packages+=(python3.11 python3.11-venv python3.11-dev)
  else  # Debian ships Python in parts
    "$python" -c 'import ensurepip' 2> /dev/null || packages+=(python3.11-venv)
    "$python" -c "$has_header" 2> /dev/null || packages+=(python3.11-dev)  # pyworld and triton compile against it
  fi
  (( ${#packages[@]} == 0 )) || apt_install "${packages[@]}"
  find_python || stop "no Python 3.11, for which requirements.lock is made; install it (for example with pyenv or uv) and call PYTHON=/path/to/python3.11 $0"
}

find_python() {  # sets `python`; a version manager's shim may be on PATH and still refuse to run
  local name
  for name in "${PYTHON:-}" python3.11 python3; do
    [[ -n $name ]] || continue
    python=$("$name" -c 'import sys; assert sys.version_info[:2] == (3, 11); print(sys.executable)' 2> /dev/null) && return
  done
  return 1
}

apt_install() {
  local command=(apt-get install --yes --no-install-recommends "$@") become=()
  (( EUID == 0 )) || become=(sudo --non-interactive)
  if ! command -v apt-get > /dev/null; then
    stop "missing system programs; install what Debian calls $*, and call $0 again"
  elif (( EUID != 0 )) && ! sudo --non-interactive true 2> /dev/null; then
    stop "missing system programs; run: sudo apt-get update && sudo ${command[*]}  and then $0 again"
  fi
  say "system programs: $*"
  # An image without package lists, or with old ones, needs an update first.
  "${become[@]}" env DEBIAN_FRONTEND=noninteractive "${command[@]}" >&2 ||
    { "${become[@]}" apt-get update >&2 && "${become[@]}" env DEBIAN_FRONTEND=noninteractive "${command[@]}" >&2; } ||
    stop "apt could not install $*; read its message above, and call $0 again"
}

make_venv() {
  if "$venv/bin/python" -c 'import sys; assert sys.version_info[:2] == (3, 11)' 2> /dev/null; then
    return  # sync makes the lock's set of any set
  fi
  [[ ! -e $venv || -e $venv/pyvenv.cfg || -z $(ls -A "$venv") ]] ||
    stop "$venv: not a virtual environment; move it away and call $0 again"
  say "a virtual environment of $python"
  "$python" -m venv --clear "$venv"
}

install_uv() {
  local wanted
  wanted=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$lock")
  if [[ $("$venv/bin/uv" --version 2> /dev/null) == "uv $wanted"* ]]; then return; fi
  "$venv/bin/python" -m pip --version > /dev/null 2>&1 || "$venv/bin/python" -m ensurepip > /dev/null
  say "uv $wanted"
  "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes \
    --requirement <(sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/^ /p}' "$lock") >&2
}

main "$@"
