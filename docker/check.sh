#!/usr/bin/env bash
# docker/check.sh [IMAGE]: the demo, whole, in the image (default: cosytune:runtime) as a stranger would run it.
#
# No network, a user id that nobody has, nothing writable but the two work mounts. Then `docker stop` in the middle of
# training: it must end within 8 s with status 75 and a checkpoint, and the same command must go on from there. Every
# file must belong to the caller. DOCKER names another program than docker, with its options; RUN_OPTIONS more options of
# `docker run`, for example "--gpus all". About 8 minutes on 2 cores. Exit status 0 only if all of it holds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }

image=${1:-cosytune:runtime}
read -r -a docker <<< "${DOCKER:-docker}"
read -r -a options <<< "${RUN_OPTIONS:-}"
id=$((20000 + RANDOM))
work=$(mktemp -d)
options+=(--network none --read-only --cap-drop ALL --security-opt no-new-privileges --shm-size 1g --user "$id:$id"
  -v "$work/egs:/workspace/egs" -v "$work/pretrained_models:/workspace/pretrained_models")

say() { printf '\n== %s\n' "$1"; }
stop() { printf 'error: %s: %s\n' "$image" "$1" >&2; exit 1; }
run() { "${docker[@]}" run --rm "${options[@]}" "$image" "$@"; }
as_root() { "${docker[@]}" run --rm --network none --user 0:0 --entrypoint "$1" -v "$work:/work" "$image" "${@:2}"; }
clean() {
  [[ -z ${container:-} ]] || "${docker[@]}" rm --force "$container" > /dev/null
  as_root find /work -mindepth 1 -delete  # who wrote it is not us
  rmdir "$work"
}

"${docker[@]}" image inspect "$image" > /dev/null 2>&1 || stop "no such image; build it: docker/build.sh --full"
trap clean EXIT
mkdir -p "$work/egs/demo" "$work/pretrained_models"
cp -r egs/demo/conf.yaml egs/demo/run.sh egs/demo/local "$work/egs/demo"
chmod -R a+rX "$work"
as_root chown -R "$id:$id" /work/egs /work/pretrained_models

say "stages -1 to 7 as user $id, without a network, on a read-only file system"
started_s=$SECONDS
run egs/demo || stop "the demo ended with status $?"
demo_s=$((SECONDS - started_s))
run python -m cosytune.voice verify egs/demo/voice || stop "the voice is not whole"
strangers=$(as_root find /work/egs /work/pretrained_models ! -uid "$id")
[[ -z $strangers ]] || stop "files that belong to somebody else: $strangers"
[[ -n $(as_root find /work/egs/demo/report/index.html -size +100k) ]] || stop "no report"

say "docker stop while the flow is trained"
again=(egs/demo --exp stopped --stage 4 --stop_stage 4)
container=$("${docker[@]}" run --detach "${options[@]}" "$image" "${again[@]}")
for (( waited_s = 0; waited_s < 600; waited_s++ )); do
  [[ $("${docker[@]}" logs "$container" 2>&1) != *'flow: update '[1-9]* ]] || break
  [[ $("${docker[@]}" inspect --format '{{.State.Running}}' "$container") == true ]] || break
  sleep 1
done
started_s=$SECONDS
"${docker[@]}" stop --time 10 "$container" > /dev/null
stop_s=$((SECONDS - started_s))
status=$("${docker[@]}" inspect --format '{{.State.ExitCode}}' "$container")
"${docker[@]}" logs "$container" 2>&1 | tail -4
(( status == 75 && stop_s <= 8 )) || stop "stopped with status $status after $stop_s s; wanted: 75 within 8 s"

say "the same command goes on"
log=$(run "${again[@]}" 2>&1) || stop "it ended with status $?: $log"
grep --fixed-strings 'flow: goes on from update' <<< "$log" || stop "it did not go on from its checkpoint: $log"

printf '\n%s: all is well; demo %s s, docker stop %s s, status 75\n' "$image" "$demo_s" "$stop_s"
