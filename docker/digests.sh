# shellcheck shell=bash
# Sourced by docker/release.sh from the repository's root: what belongs to a release, by its hashes.

write_dist() {  # write_dist VERSION DIRECTORY: source archive, SBOM and digests.txt, complete or not there
  local version=$1 dist=$2
  mkdir -p "$dist"
  git archive --format=tar --prefix="cosytune-$version/" HEAD | gzip --no-name > "$dist/cosytune-$version.tar.gz"
  grep --quiet '"bomFormat": *"CycloneDX"' docker/sbom.json || {
    echo "error: docker/sbom.json: no CycloneDX list of parts; docker/build.sh makes it" >&2
    return 1
  }
  cp docker/sbom.json "$dist/sbom.json"
  source_digests "$version" "$dist" > "$dist/digests.txt.new"
  image_digests >> "$dist/digests.txt.new"
  mv "$dist/digests.txt.new" "$dist/digests.txt"
}

source_digests() {  # source_digests VERSION DIRECTORY: what needs no engine
  local upstream commit
  commit=$(git rev-parse HEAD)
  upstream=$(sed -n 's/^COMMIT = "\([0-9a-f]\{40\}\)"$/\1/p' tools/cosytune/upstream/manifest.py)
  [[ -n $upstream ]] || { echo "error: tools/cosytune/upstream/manifest.py: no COMMIT" >&2; return 1; }
  printf 'version   %s\ncommit    %s\nupstream  %s\n' "$1" "$commit" "$upstream"
  (sha256sum requirements.lock; cd "$2" || exit; sha256sum "cosytune-$1.tar.gz" sbom.json) | sed 's/^/sha256    /'
}

image_digests() {  # the content address of each image; a registry's own digest exists only after a push
  local tag id
  for tag in slim runtime; do
    id=$(docker image inspect --format '{{.Id}}' "cosytune:$tag")
    printf 'image     %s  cosytune:%s\n' "$id" "$tag"
  done
}
