"""A voice bundle and what to do with it.

    python -m cosytune.voice verify egs/demo/voice
    python -m cosytune.voice say "おはようございます。" --voice egs/demo/voice -o out.wav
    python -m cosytune.voice assemble egs/demo/voice --out DIR
    python -m cosytune.voice install egs/demo/voice --config speaker_config.json

Exit status: 0 done, 1 failed (verify: something changed), 2 a mistake on the command line.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from cosytune.errors import UserError, run_main
from cosytune.schema import Config
from cosytune.voice import bundle

_DEFAULT_SEED = 1986
LANGUAGES: tuple[str, ...] = get_args(Config.model_fields["language"].annotation)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = chosen.run
    return command(chosen)


def _verify(chosen: argparse.Namespace) -> int:
    """Print what differs from the manifest; the status says whether anything does."""
    result = bundle.check(chosen.voice)
    for problem in result.problems():
        print(f"{chosen.voice}: {problem}")
    if not result.ok:
        count = len(result.problems())
        raise UserError(f"{chosen.voice}: {count} of {result.files} files differ; copy the bundle again or run stage 6")
    print(f"{chosen.voice}: {result.files} files, every one as it was made (manifest sha256 {result.digest})")
    return 0


def _assemble(chosen: argparse.Namespace) -> int:
    from cosytune.voice import assemble

    voice = bundle.read(chosen.voice)
    out = assemble.assemble(voice, chosen.out, chosen.base)
    print(f'{out}: CosyVoice2("{out}").inference_sft(text, "{voice.default_speaker}", text_frontend=False)')
    return 0


def _install(chosen: argparse.Namespace) -> int:
    from cosytune.voice import install

    for line in install.install(chosen.voice, chosen.config, chosen.default):
        print(line)
    return 0


def _say(chosen: argparse.Namespace) -> int:
    """Refuse what cannot work before the seconds that loading takes."""
    words = _words(chosen.text)
    if chosen.output.is_dir():
        raise UserError(f"{chosen.output}: is a directory; name a file, such as {chosen.output / 'out.wav'}")
    if chosen.output.suffix.lower() != ".wav":
        raise UserError(f"{chosen.output}: what is written is WAV; let the name end with .wav", exit_status=2)
    if chosen.output.exists() and not chosen.force:
        raise UserError(f"{chosen.output}: exists already; add --force to replace it, or name another file")
    if not chosen.output.parent.is_dir():
        raise UserError(f"{chosen.output.parent}: no such directory; make it, or name another file")
    _require_writable(chosen.output.parent)
    voice = bundle.read(chosen.voice)
    speaker = voice.speaker(chosen.speaker)
    from cosytune import families
    from cosytune.voice import assemble, synthesis

    with tempfile.TemporaryDirectory(prefix="cosytune-say-") as temporary:
        model = assemble.assemble(voice, Path(temporary) / "model", chosen.base)
        reader = synthesis.Speaker(model, families.get(voice.versions["family"]))
        language = chosen.language or voice.versions["language"]
        speech = reader.say(words, speaker, language, chosen.seed, show_progress=True)
    synthesis.write_wav(chosen.output, speech.samples, speech.rate_hz)
    print(
        f"{chosen.output}: {speech.duration_s:.2f} s of speech, {len(speech.sentences)} sentence(s), "
        f"real-time factor {speech.real_time_factor:.2f}"
    )
    for sentence in speech.cut:
        limit = synthesis.TOKENS_PER_TEXT_TOKEN
        print(f"cut at {limit} speech tokens per text token, it did not end by itself: {sentence}")
    if voice.versions["base"]["random_weights"]:
        print("the base of this voice has random weights: it sounds like noise")
    return 0


def _words(given: str) -> str:
    from cosytune import text

    if not text.is_speakable(text.clean(given).text):
        raise UserError(f"text: {given!r}: nothing to say; write at least one letter or digit", exit_status=2)
    return given


def _require_writable(directory: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as failure:
        raise UserError(f"{directory}: cannot be written to ({failure.strerror}); name another file") from None


def _language(given: str) -> str:
    if given not in LANGUAGES:
        raise argparse.ArgumentTypeError(f"'{given}' is none of {', '.join(LANGUAGES)}")
    return given


def _seed(given: str) -> int:
    seed = int(given)
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError("from 0 to 4294967295")
    return seed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cosytune.voice", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    verify = commands.add_parser("verify", help="compare every file with the manifest")
    verify.add_argument("voice", type=Path, help="a voice/ directory")
    verify.set_defaults(run=_verify)

    assembled = commands.add_parser("assemble", help="make a model directory that upstream's own class loads")
    assembled.add_argument("voice", type=Path)
    assembled.add_argument("--out", type=Path, required=True, help="the directory to make; an earlier one is replaced")
    _add_base(assembled)
    assembled.set_defaults(run=_assemble)

    install = commands.add_parser("install", help="add the voice to a server's speaker_config.json")
    install.add_argument("voice", type=Path)
    install.add_argument("--config", type=Path, required=True, help="the server's file; made if it is not there")
    install.add_argument("--default", action="store_true", help="also make it the server's default speaker")
    install.set_defaults(run=_install)

    say = commands.add_parser("say", help="speak a text into a WAV file, 24 kHz, 16-bit, mono")
    say.add_argument("text")
    say.add_argument("--voice", type=Path, required=True)
    say.add_argument("-o", "--output", type=Path, required=True)
    say.add_argument("--speaker", help="default: the voice's default speaker")
    say.add_argument("--language", type=_language, help="of the text; default: the language of the recordings")
    say.add_argument("--seed", type=_seed, default=_DEFAULT_SEED, help="the same seed, the same file (%(default)s)")
    say.add_argument("--force", action="store_true", help="replace the output file if it exists")
    _add_base(say)
    say.set_defaults(run=_say)
    return parser


def _add_base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, help="the base's model directory; default: pretrained_models/<its name>")


if __name__ == "__main__":
    run_main(main)
