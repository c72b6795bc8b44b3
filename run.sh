#!/usr/bin/env bash
# One person's recordings -> a tuned CosyVoice voice, stage by stage.
#
#   ./run.sh [egs/<speaker>] [--stage N] [--stop_stage M] [--exp NAME] [--list] [--help] [key=value ...]
#
#   egs/<speaker>    the recipe, as seen from here or from the repository's root (default: egs/demo)
#   --stage N        start at stage N (default: -1), and run again what is finished, even if nothing changed
#   --stop_stage M   stop after stage M (default: 7)
#   --exp NAME       an experiment of its own, in egs/<speaker>/exp/NAME (default: default)
#   --list           show the stages and which ones are done
#   key=value        a setting for this run, such as base=tiny or train.llm.learning_rate=5e-5

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tools/options.sh"  # "$@" -> recipe first last exp again overrides list
. "$(dirname "${BASH_SOURCE[0]}")/path.sh"
[[ -z $list ]] || exec python -m cosytune.stages "$recipe" --exp="$exp"
config=$(python -m cosytune.config "$recipe" --exp="$exp" --stage="$first" --stop_stage="$last" -- "${overrides[@]}")

step() {  # step NUMBER STAGE [launcher...]: one stage in a process of its own, which frees the GPU when it ends
  local number=$1 stage=$2 status; shift 2
  (( first <= number && number <= last )) || return 0
  "$@" python -m "cosytune.stages.$stage" "$config" "${again[@]}" < /dev/null &
  pid=$!
  while signalled='' status=0; wait "$pid" || status=$?; [[ -n $signalled ]]; do :; done
  (( status == 0 )) || give_up
}

give_up() {
  local way=("$ROOT/run.sh" "${recipe#"$ROOT"/}" --stage "$number")
  [[ $PWD != "$ROOT" ]] || way[0]=./run.sh
  (( last == 7 )) || way+=(--stop_stage "$last")
  [[ $exp == default ]] || way+=(--exp "$exp")
  local what="failed with status $status; mend it and"
  (( status != 137 )) || what="was killed by SIGKILL, most likely for lack of memory; free some and"
  [[ -z $stopped && $status != 75 ]] || what="was stopped, status $status;"
  printf 'stage %s (%s) %s go on with:' "$number" "$stage" "$what" >&2
  printf ' %q' "${way[@]}" "${overrides[@]}" >&2
  printf '\n' >&2
  exit "$status"
}

# Bash passes no signal on by itself. With a process group of its own (-m) a stage gets each one once, from here.
stopped=''
pass_on() { signalled=yes stopped=yes; kill -s "$1" "$pid"; }
set -m
trap 'pass_on HUP' HUP; trap 'pass_on INT' INT; trap 'pass_on TERM' TERM

step -1 setup     # upstream's code, verified and patched; the base model, checked
step  0 prepare   # recordings -> clips, transcripts, Kaldi data directory
step  1 embed     # clips -> speaker embeddings
step  2 tokenize  # clips -> speech tokens
step  3 pack      # data directory -> train, cv and test sets with cached features
step  4 train     # features -> LoRA adapters of the LLM and the flow
step  5 select    # checkpoints -> the one to ship, and why
step  6 export    # the choice -> a voice bundle
step  7 evaluate  # the voice -> a report with scores, plots and audio
