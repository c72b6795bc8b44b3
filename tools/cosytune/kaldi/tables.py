"""One file of a data directory, `<id> <value>` lines <-> a table of numbered lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cosytune import files


@dataclass(frozen=True)
class Line:
    """One line of a file: its number (from 1), what stands before the first space, what after."""

    number: int
    key: str
    value: str


@dataclass
class Table:
    """A file's lines by id, and what is wrong with it as `file:line: what; remedy`."""

    path: Path
    lines: dict[str, Line] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def report(self, number: int, what: str) -> None:
        self.problems.append(f"{self.path}:{number}: {what}")


def write_table(path: Path, values: Mapping[str, str]) -> None:
    """`id value` lines, sorted by code point. Ids without white space and one-line values are the caller's duty."""
    for key, value in values.items():
        if key.split() != [key] or not value.strip() or any(character in value for character in "\n\r\t\0"):
            raise ValueError(f"not a line of {path.name}: {key!r} {value!r}")
    files.write_text(path, "".join(f"{key} {value}\n" for key, value in sorted(values.items())))


def read_table(path: Path, *, strict: bool = True, content: str | None = None) -> Table:
    """The lines of one file, with all that is wrong in it alone; never raises for its content.

    `strict=False` is for a directory that others made: any order, tabs, runs of spaces, blank lines and empty values.
    `content`: what is in it, where somebody else has decoded it.
    """
    table = Table(path)
    try:
        content = path.read_bytes().decode("utf-8-sig") if content is None else content
    except UnicodeDecodeError as failure:
        number = path.read_bytes().count(b"\n", 0, failure.start) + 1
        table.report(number, "not UTF-8; convert the file with iconv -t UTF-8")
        return table
    previous, last = "", content.count("\n") + 1
    for number, raw in enumerate(content.split("\n"), start=1):
        line = raw.removesuffix("\r")
        if not line and number == last:
            break
        if not strict:
            line = line.replace("\t", " ").strip(" ")
            if not line:
                continue
        key, _, value = line.partition(" ")
        if problem := _line_problem(path.name, line, key, value, strict):
            table.report(number, problem)
        elif key in table.lines:
            table.report(number, f"'{key}' is already in line {table.lines[key].number}; delete one of the two")
        else:
            if strict and key < previous:
                table.report(number, f"'{key}' is not in order after '{previous}'; sort the file with LC_ALL=C sort")
            table.lines[key] = Line(number, key, value if strict else value.lstrip(" "))
            previous = key
    return table


def _line_problem(name: str, line: str, key: str, value: str, strict: bool) -> str | None:
    if "\0" in line:
        return "a NUL character; delete it, or convert the file to UTF-8 if it is UTF-16"
    if "\t" in line:
        return "a tab; put one space between id and value, and spaces in the value"
    if not line.strip():
        return "an empty line; delete it"
    if not key:
        return "begins with a space; begin with the id"
    if strict and not value.strip():
        what = "no transcript" if name == "text" else "no value"
        return f"'{key}' has {what}; write one after the id or delete the id from every file"
    return None
