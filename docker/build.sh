#!/usr/bin/env bash
# docker/build.sh [--full | --dev]: this checkout -> an image and the list of what it holds (SBOM).
#
#   docker/build.sh          cosytune:slim, for tests: no torch
#   docker/build.sh --full   cosytune:runtime, which is also cosytune: everything that ./run.sh needs (11 GB)
#   docker/build.sh --dev    cosytune:dev: that, the tests and what they drive
#
# BASE_IMAGE names another base than the pinned Debian, for example a mirror's; DOCKER another program than docker, with
# its options; BUILD_OPTIONS more options of `docker build`. The SBOM is written to docker/sbom-<target>.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stop() { printf 'error: %s\n' "$1" >&2; exit "${2:-1}"; }

case ${1:-} in
  '') target=slim ;;
  --full) target=runtime ;;
  --dev) target=dev ;;
  --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;;
  *) stop "unknown option '$1'; the options are --full --dev --help" 2 ;;
esac
(( $# < 2 )) || stop "one target at a time: '$2' is one too many" 2
read -r -a docker <<< "${DOCKER:-docker}"
read -r -a options <<< "${BUILD_OPTIONS:-}"
"${docker[@]}" version > /dev/null 2>&1 || stop "no Docker engine answers; start one (sudo systemctl start docker), or be one of those who may (sudo usermod -aG docker \$USER)"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' tools/cosytune/__init__.py)
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
[[ -z $(git status --porcelain 2> /dev/null) ]] || revision+=-dirty  # what is not committed is in the image, too
upstream=$(sed -n 's/^COMMIT = "\(.*\)"$/\1/p' tools/cosytune/upstream/manifest.py)
lock=$([[ $target == slim ]] && echo docker/slim.lock || echo requirements.lock)
[[ -z ${BASE_IMAGE:-} ]] || options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")

tags=(--tag "cosytune:$target")
[[ $target != runtime ]] || tags+=(--tag cosytune)
started_s=$SECONDS
for label in org.opencontainers.image.title=CosyTune org.opencontainers.image.licenses=Apache-2.0 \
  "org.opencontainers.image.version=$version" "org.opencontainers.image.revision=$revision" \
  "cosytune.upstream.revision=$upstream" "cosytune.lock.sha256=$(sha256sum < "$lock" | cut -d ' ' -f 1)" \
  "cosytune.target=$target"; do
  options+=(--label "$label")
done
DOCKER_BUILDKIT=1 "${docker[@]}" build --file docker/Dockerfile --target "$target" "${tags[@]}" "${options[@]}" .
sbom=docker/sbom-$target.json
"${docker[@]}" run --rm --network none --read-only --cap-drop ALL "cosytune:$target" python -m cosytune.sbom > "$sbom.part"
mv "$sbom.part" "$sbom"
size=$("${docker[@]}" image inspect --format '{{.Size}}' "cosytune:$target")
printf 'cosytune:%s: %s MB, %s s; what it holds: %s\n' "$target" $((size / 1000000)) $((SECONDS - started_s)) "$sbom"
