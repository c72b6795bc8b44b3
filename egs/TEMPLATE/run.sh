#!/usr/bin/env bash
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) # this recipe, whatever its name and the caller's place
exec bash "${here%/*/*}/run.sh" "$here" "$@"
