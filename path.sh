# shellcheck shell=bash
# Sourced by run.sh and tests/run.sh: the repository's root, its interpreter, PYTHONPATH, locale and caches.
# Installs the environment when there is none, or one that another requirements.lock made. COSYTUNE_LOCK names another
# lock: an image may have a part of the environment alone.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd -P)
export ROOT

if [[ $(cat "$ROOT/.venv/requirements.lock.sha256" 2> /dev/null) != "$(sha256sum < "$ROOT/${COSYTUNE_LOCK:-requirements.lock}")" ]]; then
  "$ROOT/tools/install.sh" || return
fi
export PATH=$ROOT/.venv/bin:$PATH
export PYTHONPATH=$ROOT/tools  # never $ROOT: upstream has a tools/ of its own
unset PYTHONHOME
export LC_ALL=C.UTF-8 PYTHONUTF8=1  # Kaldi's order of lines, and Japanese text on any machine
export PYTHONUNBUFFERED=1           # a log shows a line when it is written, in the order of both streams
export PYTHONHASHSEED=0             # two runs are the same run, libraries that iterate over sets included
export TORCH_WARM_POOL=0            # torch would fork workers for a compiler that no stage calls
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}  # spinning threads made a training step 5 to 10 times slower on shared cores

# An unknown user id (docker --user) has no name and no home: librosa, matplotlib and torch.compile want both.
[[ -n ${USER:-} ]] || USER=$(id -un 2> /dev/null) || USER=uid$UID  # of one without a name, id prints the number and fails
export USER
if [[ ! -w ${HOME:-/nonexistent} ]]; then
  export HOME=${TMPDIR:-/tmp}/cosytune-$UID
  mkdir -p "$HOME" || return
  export XDG_CACHE_HOME=$HOME/.cache NUMBA_CACHE_DIR=$HOME/numba MPLCONFIGDIR=$HOME/matplotlib
  export TORCHINDUCTOR_CACHE_DIR=$HOME/inductor
fi
