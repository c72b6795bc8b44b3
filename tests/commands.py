"""The fenced blocks of a paper -> its commands, and whether each of them is one that exists and parses.

A command of ours is given to the parser that it would meet: run.sh's own options, the settings' schema, a module's
`--help`. Of other people's programs only the names are known, of docker's options those that the papers use.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cosytune import config as configs
from cosytune.layout import ROOT

OUTSIDE = {
    *(
        "apt-get",
        "cd",
        "cp",
        "curl",
        "df",
        "exit",
        "export",
        "gcloud",
        "git",
        "gpg",
        "mkdir",
        "nvidia-ctk",
        "nvidia-smi",
        "sed",
    ),
    *("ssh", "systemctl", "tee", "usermod", "uv"),
}
OPTIONS_OF_RUN = {  # docker run: those with a value, and those without
    True: {"--gpus", "--shm-size", "--user", "-v", "--name", "--stop-timeout", "--network", "-p"},
    False: {"--rm", "-it", "--read-only", "--detach"},
}
IMAGES = {"cosytune", "cosytune:slim", "cosytune:runtime", "cosytune:dev"}
TUNED = re.compile(r"egs/(lj|demo|yotaro)$")


class WrongCommandError(Exception):
    """A command that a reader could not type as it stands; the message says why."""


@dataclass(frozen=True)
class Block:
    """One fenced block: what stands behind the opening fence, and the text below it."""

    language: str
    text: str

    def lines(self) -> list[str]:
        """The commands, one a string: continued lines joined, comments and empty lines gone."""
        joined = re.sub(r"\\\n|(?<=\|)\n", " ", self.text).splitlines()
        return [command for line in joined if (command := _without_comment(line))]


def blocks(paper: Path) -> list[Block]:
    """The fenced blocks, in order; line by line, for a closing fence looks like an opening one."""
    found, language, inside = [], None, []
    for line in paper.read_text(encoding="utf-8").splitlines():
        if not line.lstrip().startswith("```"):  # within a list it is indented
            inside.append(line)
        elif language is None:
            language, inside = line.lstrip().removeprefix("```"), []
        else:
            found.append(Block(language, textwrap.dedent("\n".join(inside))))
            language = None
    if language is not None:
        raise WrongCommandError(f"{paper.name}: a block is never closed")
    return found


def bash_lines(paper: Path) -> list[str]:
    return [line for block in blocks(paper) if block.language == "bash" for line in block.lines()]


@functools.cache  # both READMEs have the same ones
def check(line: str) -> None:
    """One line of a bash block. Raises WrongCommandError where it is no command that exists and parses."""
    parsed = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
    if parsed.returncode != 0:
        raise WrongCommandError(parsed.stderr.strip())
    for words in _simple_commands(line):
        _check_command(words)


def _without_comment(line: str) -> str:
    """`ls   # all` -> `ls`: bash takes a # for a comment where a word could begin, outside of quotes."""
    quote = ""
    for at, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at].strip()
    return line.strip()


def _simple_commands(line: str) -> Iterator[list[str]]:
    """What stands between |, &&, || and ; as words, without redirections, assignments and sudo."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in lexer:
        if set(word) <= set("|&;"):
            yield _bare(words)
            words = []
        elif set(word) <= set("<>"):
            skip = True  # what follows is a file
        elif skip:
            skip = False
        else:
            words.append(word)
    yield _bare(words)


def _bare(words: Sequence[str]) -> list[str]:
    rest = list(words)
    while rest and (rest[0] == "sudo" or re.match(r"[A-Za-z_]\w*=", rest[0])):
        rest.pop(0)
    if not rest:
        raise WrongCommandError(f"'{' '.join(words)}' runs nothing")
    return rest


def _check_command(words: Sequence[str]) -> None:
    program, arguments = words[0], words[1:]
    if program in OUTSIDE:
        return
    ours: dict[str, Callable[[Sequence[str]], None]] = {
        ".": _sourced,
        "./run.sh": run_sh,
        "docker": _docker,
        "huggingface-cli": lambda _: None,
        "python": _python,
        "sbatch": _sbatch,
        "sky": _sky,
        "tests/run.sh": _tests,
    }
    if re.fullmatch(r"egs/[^/]+/run\.sh", program):
        run_sh([str(Path(program).parent), *arguments])
    elif re.fullmatch(r"docker/[a-z]+\.sh", program):
        _script(program, arguments)
    elif program in ours:
        ours[program](arguments)
    else:
        raise WrongCommandError(f"'{program}' is no program that the papers may use")


def run_sh(arguments: Sequence[str]) -> None:
    """The command line of run.sh: its own parser for the options, the schema for the settings."""
    script = '. tools/options.sh; printf "%s\\n" "$recipe" "${overrides[@]}"'
    done = subprocess.run(["bash", "-c", script, "run.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise WrongCommandError(done.stderr.strip())
    recipe, *overrides = done.stdout.splitlines()
    if not TUNED.match(recipe):
        raise WrongCommandError(f"'{recipe}' is none of the recipes that the papers speak of")
    layers = [configs.parse_override(override) for override in overrides]
    try:
        configs.parse(configs.merge(layers), "a paper")
    except configs.UserError as refused:
        raise WrongCommandError("; ".join(refused.messages)) from None


def _sourced(arguments: Sequence[str]) -> None:
    _there(arguments[0])


def _there(name: str) -> Path:
    path = ROOT / name
    if not path.exists():
        raise WrongCommandError(f"'{name}' is not there")
    return path


def _tests(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if argument.startswith("tests/"):
            _there(argument)


def _script(program: str, arguments: Sequence[str]) -> None:
    """A script of ours: there, to be run, and with every option in its --help."""
    path = _there(program)
    if not os.access(path, os.X_OK):
        raise WrongCommandError(f"'{program}' cannot be run")
    _in_help(arguments, _help((str(path),)), program)


def _python(arguments: Sequence[str]) -> None:
    if arguments[0] != "-m" or not arguments[1].startswith("cosytune."):
        raise WrongCommandError(f"'python {' '.join(arguments)}' is no module of ours")
    module, rest = arguments[1], arguments[2:]
    command = (sys.executable, "-m", module)
    help_text = _help(command)
    subcommands = re.search(r"\{([\w,]+)\}|command \.\.\.", help_text)
    if subcommands and rest and not rest[0].startswith("-"):
        if not re.search(rf"(^|[\s{{,]){re.escape(rest[0])}([\s,}}]|$)", help_text, re.MULTILINE):
            raise WrongCommandError(f"'{module}' has no '{rest[0]}'")
        help_text += _help((*command, rest[0]))
    _in_help(rest, help_text, module)


@functools.cache
def _help(command: tuple[str, ...]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run([*command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise WrongCommandError(f"{' '.join(command[-2:])} --help ends with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _in_help(arguments: Sequence[str], help_text: str, name: str) -> None:
    for option in arguments:
        if option.startswith("-") and not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help_text):
            raise WrongCommandError(f"'{name}' has no option '{option}'")


def _docker(arguments: Sequence[str]) -> None:
    if arguments[0] == "run":
        _docker_run(list(arguments[1:]))
    elif arguments[0] == "compose":
        _compose(list(arguments[1:]))
    elif arguments[0] not in {"logs", "push", "start", "tag"}:
        raise WrongCommandError(f"'docker {arguments[0]}' is not in the papers' list")


def _docker_run(words: list[str]) -> None:
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in OPTIONS_OF_RUN[True]:
            value = words.pop(0)
            if option == "-v" and not re.fullmatch(r"[^:]+:/workspace/(egs|pretrained_models)", value):
                raise WrongCommandError(f"docker run: '{value}' mounts nothing that the image reads")
        elif option not in OPTIONS_OF_RUN[False]:
            raise WrongCommandError(f"docker run: '{option}' is not in the papers' list")
    if not words or words[0] not in IMAGES:
        raise WrongCommandError(f"docker run: '{' '.join(words)}' does not begin with an image of ours")
    _in_the_image(words[1:])


def _in_the_image(words: Sequence[str]) -> None:
    _check_command(words) if words[:1] == ["python"] else run_sh(words)


def _compose(words: list[str]) -> None:
    if words[0] != "-f":
        raise WrongCommandError("docker compose: -f docker/compose.yaml is missing")
    services = yaml.safe_load(_there(words[1]).read_text(encoding="utf-8"))["services"]
    rest = [word for word in words[3:] if word != "--rm"]
    named = rest[:1] if words[2] == "run" else rest
    for name in named:
        if name not in services:
            raise WrongCommandError(f"docker compose: no service '{name}' in {words[1]}")
    if words[2] == "run":
        _in_the_image(rest[1:])


def _sbatch(words: Sequence[str]) -> None:
    wrapped = [word.partition("=")[2] for word in words if word.startswith("--wrap=")]
    if len(wrapped) != 1:
        raise WrongCommandError("sbatch: --wrap='COMMAND' is the form that the papers use")
    check(wrapped[0])


def _sky(words: Sequence[str]) -> None:
    if list(words[:2]) != ["jobs", "launch"]:
        raise WrongCommandError(f"'sky {' '.join(words[:2])}' is not in the papers' list")
    known = yaml.safe_load(_there(words[2]).read_text(encoding="utf-8"))["envs"]
    for option, value in zip(words[3::2], words[4::2], strict=True):
        if option == "--env" and value.partition("=")[0] not in known:
            raise WrongCommandError(f"{words[2]} has no variable '{value.partition('=')[0]}'")
        if option not in {"--env", "--image-id"}:
            raise WrongCommandError(f"sky: '{option}' is not in the papers' list")
