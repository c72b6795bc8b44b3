# shellcheck shell=bash
# Sourced by docker/release.sh from the repository's root: what belongs to a release, by its hashes.

images=(slim runtime)
read -r -a docker <<< "${DOCKER:-docker}"  # as docker/build.sh reads it

write_dist() {  # write_dist VERSION DIRECTORY: source archive, lists of parts (SBOM) and digests.txt, which comes last
  local version=$1 dist=$2 image parts
  mkdir -p "$dist"
  git archive --format=tar --prefix="cosytune-$version/" HEAD | gzip --no-name > "$dist/cosytune-$version.tar.gz"
  for image in "${images[@]}"; do
    parts=docker/sbom-$image.json
    grep --quiet '"bomFormat": *"CycloneDX"' "$parts" 2> /dev/null || {
      echo "error: $parts: no CycloneDX list of parts; docker/build.sh makes it" >&2
      return 1
    }
    cp "$parts" "$dist/"
  done
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
  (sha256sum requirements.lock; cd "$2" || exit; sha256sum "cosytune-$1.tar.gz" sbom-*.json) | sed 's/^/sha256    /'
}

image_digests() {  # the content address of each image; a registry's own digest exists only after a push
  local image id
  for image in "${images[@]}"; do
    id=$("${docker[@]}" image inspect --format '{{.Id}}' "cosytune:$image")
    printf 'image     %s  cosytune:%s\n' "$id" "$image"
  done
}
