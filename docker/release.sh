#!/usr/bin/env bash
# A clean checkout of main -> tested images, dist/<version>/ and a git tag v<version>. Nothing is pushed.
#
#   docker/release.sh [--dry-run] [--help]
#
#   --dry-run   check whether a release may be made, and print its steps
#
# The version is that of tools/cosytune/__init__.py. CHANGELOG.md must open with it and a date, and have nothing left
# under [Unreleased]. Needs a Docker engine; takes as long as all tests and both images. A step that fails ends it, and no
# tag is set.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
. docker/digests.sh

say() { printf 'release: %s\n' "$1" >&2; }
refuse() { printf 'error: %s\n' "$1" >&2; exit "${2:-1}"; }

dry_run=''
while (( $# )); do
  case $1 in
    --dry-run) dry_run=yes; shift ;;
    --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
    *) refuse "unknown argument '$1'; the options are --dry-run --help" 2 ;;
  esac
done

main() {
  local version commit
  version=$(version_of_the_package)
  commit=$(git rev-parse HEAD)
  check_the_tree
  check_the_changelog "$version"
  check_the_tag "v$version"
  step tests/run.sh
  step docker/build.sh
  step docker/build.sh --full
  step docker/check.sh
  step write_dist "$version" "dist/$version"
  step check_nothing_moved "$commit"
  step git tag --annotate "v$version" --message "CosyTune $version"
  [[ -n $dry_run ]] || say "v$version is tagged here; dist/$version/digests.txt says what belongs to it. Look, then push both yourself"
}

check_the_tree() {
  local branch changes
  branch=$(git symbolic-ref --quiet --short HEAD) || branch='no branch'
  [[ $branch == main ]] || refuse "on $branch; releases are made on main: git switch main"
  changes=$(git status --porcelain)
  [[ -z $changes ]] || refuse "the tree is not clean; commit these, or put them away:"$'\n'"$changes"
}

version_of_the_package() {
  local file=tools/cosytune/__init__.py version
  version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$file")
  [[ $version =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]] ||
    refuse "$file: __version__ is '$version', no semantic version; write MAJOR.MINOR.PATCH"
  printf '%s\n' "$version"
}

check_the_changelog() {  # VERSION
  local heading left
  heading=$(grep --max-count 1 '^## \[[0-9]' CHANGELOG.md || true)
  [[ $heading =~ ^'## ['"$1"'] - '[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] ||
    refuse "CHANGELOG.md: its first version says '$heading'; for this release write '## [$1] - $(date +%F)'"
  left=$(sed -n '/^## \[Unreleased\]/,/^## \[[0-9]/{/^## /d;/[^[:space:]]/p}' CHANGELOG.md)
  [[ -z $left ]] || refuse "CHANGELOG.md: [Unreleased] is not empty; move what it says under [$1], and commit"
}

check_the_tag() {  # TAG
  ! git rev-parse --quiet --verify "refs/tags/$1" > /dev/null ||
    refuse "the tag $1 is there already; raise __version__ in tools/cosytune/__init__.py, and CHANGELOG.md with it"
}

step() {  # step COMMAND...: one after the other, and none after one that failed
  say "$*"
  [[ -z $dry_run ]] || return 0
  local status
  set +e  # a function that is called beside || would go on after its own failures, -e or not
  (set -e; "$@") < /dev/null
  status=$?
  set -e
  (( status == 0 )) || refuse "'$*' failed with status $status; no tag was set. Mend it and call docker/release.sh again" "$status"
}

check_nothing_moved() {  # COMMIT: what was tested and built is what gets the tag
  [[ $(git rev-parse HEAD) == "$1" ]] || refuse "HEAD moved during the release, from $1"
  check_the_tree
}

main
