#!/usr/bin/env bash
# tests/run.sh [pytest arguments]: linters and tests, exit status 0 only if all of them pass.
#
# With arguments (tests/run.sh tests/unit -k config) only these tests run, after the same linters.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./path.sh
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # two workers of pytest share the cores; a file's tests share a worker

failed=()
check() {  # check NAME COMMAND...: goes on after a failure, so that one run shows everything
  local name=$1; shift
  printf '\n== %s\n' "$name"
  "$@" < /dev/null || failed+=("$name")
}

shopt -s nullglob
scripts=(./*.sh .ci/run {docker,tests,tools}/*.sh egs/*/*.sh egs/*/local/*.sh)
dockerfiles=(docker/*Dockerfile*)
check 'ruff check' python -m ruff check .
check 'ruff format' python -m ruff format --check .
check mypy python -m mypy
check shellcheck shellcheck --external-sources "${scripts[@]}"
(( ${#dockerfiles[@]} == 0 )) || check hadolint hadolint "${dockerfiles[@]}"
check pytest python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"

printf '\n'
if (( ${#failed[@]} )); then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
printf 'all checks passed\n'
