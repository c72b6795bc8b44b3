#!/usr/bin/env bash
# In the image: what stands behind its name on the command line -> ./run.sh with that, or another program.
#
#   docker run cosytune egs/yotaro --stage 0             is ./run.sh egs/yotaro --stage 0
#   docker run cosytune python -m cosytune.doctor        is that program, in the environment of path.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./path.sh

is_program() {  # a name as python or bash, or a file that can be run; a recipe is a directory, the rest has - or =
  [[ ${1:-} =~ ^[a-z][a-z0-9_.-]*$ && -n $(type -P -- "$1") ]] || [[ -f ${1:-} && -x $1 ]]
}

if is_program "$@"; then
  exec "$@"
fi
exec ./run.sh "$@"
