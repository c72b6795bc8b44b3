"""Upstream's code: brought at its pinned commit, verified file by file, patched; and the bridge that imports it."""
