"""Layers, checks and freezing of the config, through its public functions and through its command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cosytune import config as configs
from cosytune import files, otherwise
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.record import Record, flatten
from cosytune.schema import Config
from cosytune.stages import STAGES

FIRST, LAST = STAGES[0].number, STAGES[-1].number


def stage(name: str):
    return next(one for one in STAGES if one.name == name)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "花子's voice"
    path.mkdir()
    (path / "conf.yaml").write_text("base: random\ntrain:\n  llm: {learning_rate: 2e-4}\n", encoding="utf-8")
    return path


def frozen(recipe: Path, *overrides: str, first: int = FIRST, last: int = LAST, exp: str = "default") -> Config:
    return configs.load(configs.freeze(recipe, exp, overrides, first, last))[0]


def mistakes(recipe: Path, *overrides: str, first: int = FIRST, last: int = LAST, exp: str = "default") -> list[str]:
    with pytest.raises(UserError) as raised:
        configs.freeze(recipe, exp, overrides, first, last)
    assert raised.value.exit_status == 2
    assert all("\n" not in message for message in raised.value.messages)
    return list(raised.value.messages)


def finish(recipe: Path, name: str, config: Config) -> None:
    """Leave the record that the runner leaves when the stage has finished with this config."""
    Record(flatten(config, stage(name).uses), {}, {}).write(Layout(recipe), stage(name))


def test_layers_defaults_below_the_recipe_below_the_command_line(recipe: Path) -> None:
    config = frozen(recipe, "train.llm.num_train_epochs=3", "seed=7")
    assert config.train.llm.learning_rate == 2e-4
    assert config.train.llm.num_train_epochs == 3
    assert config.seed == 7
    assert config.train.flow.learning_rate == Config().train.flow.learning_rate
    assert config.base == "random"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("5E-5", 5e-5), (".5e-3", 5e-4), ("1.5e-4", 1.5e-4), ("1", 1.0)]
)
def test_numbers_as_people_write_them(recipe: Path, text: str, value: float) -> None:
    assert frozen(recipe, f"train.llm.learning_rate={text}").train.llm.learning_rate == value


def test_values_are_yaml(recipe: Path) -> None:
    config = frozen(
        recipe, "description=a = b: c", "audio.keep=[a, b]", "export.merged=false", "speaker='007'", "model_dir="
    )
    assert config.description == "a = b: c"
    assert config.audio.keep == ["a", "b"]
    assert config.export.merged is False
    assert config.speaker == "007"
    assert config.model_dir is None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("bas=tiny", "base"),
        ("train.llm.learning_rat=1e-4", "train.llm.learning_rate"),
        ("lora.lm=1e-4", "lora.llm"),
        ("learnin_rate=1e-4", "train.llm.learning_rate"),
        ("audio.min_duration=1", "audio.min_duration_s"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_right_one(recipe: Path, wrong: str, right: str) -> None:
    (message,) = mistakes(recipe, wrong)
    assert message.startswith(f"command line: unknown key '{wrong.partition('=')[0]}'")
    assert message.endswith(f"did you mean '{right}'?")


def test_all_mistakes_at_once_each_with_its_place(recipe: Path) -> None:
    (recipe / "conf.yaml").write_text("bass: tiny\nseed: -1\ntrain: {llm: {num_train_epochs: many}}\n")
    found = mistakes(recipe, "lora.llm.r=0", "token_max_length=0")
    assert len(found) == 5
    places = sorted(message.partition(": ")[0] for message in found)
    assert places == [str(recipe / "conf.yaml")] * 3 + ["command line"] * 2
    text = "\n".join(found)
    assert "train.llm.num_train_epochs = 'many'" in text
    assert "seed = -1" in text
    assert "lora.llm.r = 0" in text


def test_a_value_of_several_types_is_one_mistake(recipe: Path) -> None:
    (message,) = mistakes(recipe, "train.llm.max_tokens_per_batch=0")
    assert message.startswith("command line: train.llm.max_tokens_per_batch = 0: ")
    assert "greater than 0" in message
    assert "'auto'" in message


def test_text_settings_of_the_command_line_are_text(recipe: Path) -> None:
    config = frozen(recipe, "speaker=007", "description=calm: [low", "licence='CC0: 1'", "consent=yes")
    assert (config.speaker, config.description, config.licence, config.consent) == (
        "007",
        "calm: [low",
        "CC0: 1",
        "yes",
    )


def test_a_list_of_texts_of_the_command_line_is_a_list(recipe: Path) -> None:
    config = frozen(recipe, "lora.llm.targets=[default, speaker]", "evaluate.sentences=['はい', '12']")
    assert config.lora.llm.targets == ["default", "speaker"]
    assert config.evaluate.sentences == ["はい", "12"]


def test_no_lora_target_at_all_is_a_mistake(recipe: Path) -> None:
    assert "lora.flow.targets = []" in mistakes(recipe, "lora.flow.targets=[]")[0]


def test_a_sample_rate_that_the_model_does_not_hear_is_a_mistake(recipe: Path) -> None:
    (message,) = mistakes(recipe, "audio.sample_rate_hz=16000")
    assert message.startswith("command line: audio.sample_rate_hz = 16000: ")
    assert "24000" in message


@pytest.mark.parametrize("name", ["export", "evaluate"])
def test_another_language_makes_another_voice_and_report(recipe: Path, name: str) -> None:
    finish(recipe, name, frozen(recipe))
    (message,) = mistakes(recipe, "language=en", last=5)
    assert "language was 'ja', is 'en'" in message


def test_more_threads_change_no_feature(recipe: Path) -> None:
    finish(recipe, "embed", frozen(recipe))
    assert frozen(recipe, "features.threads=4", first=2).features.threads == 4


def test_a_date_that_is_none_is_text_or_a_mistake(recipe: Path) -> None:
    assert frozen(recipe, "description=2026-13-45").description == "2026-13-45"
    assert "not readable as YAML" in mistakes(recipe, "seed=2026-13-45")[0]


def test_a_number_where_text_is_wanted_says_how_to_quote(recipe: Path) -> None:
    (recipe / "conf.yaml").write_text("speaker: 007\n")
    assert "speaker = 7" in mistakes(recipe)[0]
    assert "quotes" in mistakes(recipe)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: [tiny", "not readable as YAML"),
        ("- base\n", "expected 'key: value' lines"),
        ("seed: 1\nseed: 2\n", "'seed' stands twice"),
        ("seed: 2026-13-45\n", "not readable as YAML"),
        ("description: !!python/object/apply:os.getcwd []\n", "not readable as YAML"),
    ],
)
def test_a_conf_that_is_no_mapping_is_one_line(recipe: Path, text: str, says: str) -> None:
    (recipe / "conf.yaml").write_text(text)
    (message,) = mistakes(recipe)
    assert says in message
    assert message.startswith(str(recipe / "conf.yaml"))


def test_a_conf_in_another_encoding_is_one_line(recipe: Path) -> None:
    (recipe / "conf.yaml").write_bytes("description: 花子の声\n".encode("shift_jis"))
    assert "not readable" in mistakes(recipe)[0]


@pytest.mark.parametrize("override", ["=3", "=", "[=]"])
def test_an_override_that_is_none(recipe: Path, override: str) -> None:
    assert mistakes(recipe, override)


@pytest.mark.parametrize("exp", ["", ".", "..", "../x", "a/b", "-x", ".hidden", "a\nb"])
def test_an_experiment_stays_in_its_recipe(recipe: Path, exp: str) -> None:
    assert "not a directory's name" in mistakes(recipe, exp=exp)[0]


@pytest.mark.parametrize("exp", ["a", "rank 32", "試し-2", "v1.2+b"])
def test_an_experiment_may_have_a_readable_name(recipe: Path, exp: str) -> None:
    assert configs.freeze(recipe, exp, [], FIRST, LAST) == recipe / "exp" / exp / "config.yaml"


def test_a_mistake_leaves_the_frozen_config_as_it_was(recipe: Path) -> None:
    path = configs.freeze(recipe, "default", ["seed=7"], FIRST, LAST)
    before = path.read_bytes()
    mistakes(recipe, "sed=8")
    assert path.read_bytes() == before


@contextmanager
def at_work(directory: Path) -> Iterator[None]:
    """Another process that holds what a stage holds while it runs, until the block ends."""
    code = "import sys; from pathlib import Path; from cosytune import locks\nwith locks.alone(Path(sys.argv[1])):\n"
    code += "    print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()


@pytest.mark.parametrize("name", ["prepare", "train"])
def test_a_run_at_work_keeps_the_config_that_it_runs_with(recipe: Path, name: str) -> None:
    path = configs.freeze(recipe, "default", ["seed=7"], FIRST, LAST)
    before = {one: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}
    place = Record.path(Layout(recipe), stage(name)).parent
    with at_work(place), pytest.raises(UserError) as refused:
        configs.freeze(recipe, "default", ["seed=8"], FIRST, LAST)
    assert list(refused.value.messages) == [f"{recipe}: another run is at work there; wait for it, or stop it"]
    assert {one: one.read_bytes() for one in path.parent.iterdir() if one.is_file()} == before
    assert frozen(recipe, "seed=8").seed == 8


def test_training_of_one_experiment_hinders_no_other(recipe: Path) -> None:
    with at_work(Record.path(Layout(recipe, "one"), stage("train")).parent):
        assert frozen(recipe, "seed=8", exp="two").seed == 8


def test_the_frozen_config_is_complete_and_reads_back_the_same(recipe: Path) -> None:
    path = configs.freeze(recipe, "default", ["seed=7", "description=花子の声: 1"], FIRST, LAST)
    config, layout = configs.load(path)
    assert layout == Layout(recipe.resolve(), "default")
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == config.model_dump(mode="json")
    assert "花子の声" in path.read_text(encoding="utf-8")


def test_later_stages_keep_the_settings_of_the_run_before(recipe: Path) -> None:
    frozen(recipe, "seed=7", "train.llm.num_train_epochs=3")
    assert frozen(recipe, "train.llm.num_train_epochs=4", first=3).seed == 7
    again = frozen(recipe, first=4)
    assert (again.seed, again.train.llm.num_train_epochs) == (7, 4)
    assert frozen(recipe).seed == Config().seed  # a run of everything starts from the recipe alone


def test_settings_of_one_experiment_stay_there(recipe: Path) -> None:
    frozen(recipe, "seed=7", exp="one")
    assert frozen(recipe, first=3, exp="two").seed == Config().seed


def test_a_changed_key_of_a_finished_stage_stops_with_the_difference(recipe: Path) -> None:
    finish(recipe, "train", frozen(recipe))
    (message,) = mistakes(recipe, "train.llm.learning_rate=5e-5", first=5)
    assert message.startswith("train.llm.learning_rate was 0.0002, is 5e-05, which stage 4 (train) has used")
    assert message.endswith("--stage 4, or take another --exp name")
    finish(recipe, "train", frozen(recipe, "train.llm.learning_rate=5e-5", first=4))  # the stage itself may take it
    frozen(recipe, "export.merged=false", first=5)  # and what the stage did not use may change


def test_a_changed_key_of_the_shared_data_is_not_mended_by_another_experiment(recipe: Path) -> None:
    finish(recipe, "pack", frozen(recipe))
    (message,) = mistakes(recipe, "split.cv_fraction=0.3", first=4)
    assert message.endswith("keep it with split.cv_fraction=0.1, or run again with --stage 3")
    assert mistakes(recipe, "split.cv_fraction=0.3", first=4, exp="another")


def test_a_changed_key_of_a_later_stage_names_that_stage(recipe: Path) -> None:
    finish(recipe, "export", frozen(recipe))
    (message,) = mistakes(recipe, "licence=CC0", first=0, last=4)
    assert message.endswith("run again with --stop_stage 6, or take another --exp name")


def test_a_stage_without_config_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such config; run \./run\.sh"):
        configs.load(tmp_path / "exp" / "default" / "config.yaml")


def test_the_command_prints_the_path_alone_and_imports_nothing_heavy(recipe: Path) -> None:
    script = (
        "import sys; sys.argv = ['config', *sys.argv[1:]]\n"
        "from cosytune.config import main; main()\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'onnxruntime') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(recipe), "--stage", "-1", "--exp", "x", "--", "seed=7"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == [str(recipe / "exp" / "x" / "config.yaml"), "[]"]


@pytest.mark.parametrize("conf", sorted(ROOT.glob("egs/*/conf.yaml")), ids=lambda path: path.parent.name)
def test_every_shipped_conf_is_right(conf: Path) -> None:
    assert configs.read_recipe(Layout(conf.parent)).model == "cosyvoice2-0.5b"


def test_every_setting_that_a_stage_uses_exists() -> None:
    for one in STAGES:
        assert flatten(Config(), one.uses), one.name


def test_overrides_are_kept_as_given(recipe: Path) -> None:
    path = configs.freeze(recipe, "default", ["seed=7"], FIRST, LAST)
    assert files.read_json(path.parent / "overrides.json") == ["seed=7"]


@pytest.mark.parametrize("given", ["train.llm.learning_rate=.inf", "train.flow.weight_decay=.nan", "train.mode=llm"])
def test_values_that_no_training_can_use_are_refused(given: str) -> None:
    key = given.partition("=")[0]
    with pytest.raises(UserError, match=re.escape(key)):
        configs.parse(configs.parse_override(given), "command line")


@pytest.mark.parametrize(
    ("mode", "modules"), [("joint", ("llm", "flow")), ("llm_only", ("llm",)), ("flow_only", ("flow",))]
)
def test_the_mode_names_the_modules(recipe: Path, mode: str, modules: tuple[str, ...]) -> None:
    assert frozen(recipe, f"train.mode={mode}").train.modules == modules


@pytest.mark.parametrize(
    ("given", "key", "says"),
    [
        (["bf16=true", "fp16=true"], "fp16 = True", "bf16 is true, too"),
        (
            ["tokens_per_update=4000", "max_tokens_per_batch=1000", "gradient_accumulation_steps=4"],
            "gradient_accumulation_steps = 4",
            "tokens_per_update = 4000 says it already",
        ),
        (["gradient_accumulation_steps=4"], "gradient_accumulation_steps = 4", "while max_tokens_per_batch is auto"),
        (["max_steps=0"], "max_steps = 0", "or -1 for num_train_epochs"),
        (["max_steps=-2"], "max_steps = -2", "or -1 for num_train_epochs"),
        (["report_to=[wandb, tensorboard, wandb]"], "report_to", "wandb stands twice"),
        (["lr_scheduler_kwargs={power: 2}"], "lr_scheduler_kwargs", "cosine takes num_cycles, not power"),
        (
            ["lr_scheduler_type=linear", "lr_scheduler_kwargs={num_cycles: 2}"],
            "lr_scheduler_kwargs",
            "linear takes none, not num_cycles",
        ),
        (
            ["lr_scheduler_type=cosine_with_restarts", "lr_scheduler_kwargs={num_cycles: 1.5}"],
            "lr_scheduler_kwargs",
            "must be a whole number",
        ),
        (
            ["lr_scheduler_type=polynomial", "lr_scheduler_kwargs={lr_end: 0.1}"],
            "lr_scheduler_kwargs",
            "less than learning_rate (0.0001)",
        ),
        (["lr_scheduler_kwargs={num_cycles: 0}"], "lr_scheduler_kwargs", "num_cycles must be greater than 0"),
        (["adam_beta2=1.0"], "adam_beta2 = 1.0", "less than 1"),
    ],
)
@pytest.mark.parametrize("section", ["train.flow"])
def test_settings_of_training_that_contradict_each_other(
    recipe: Path, section: str, given: list[str], key: str, says: str
) -> None:
    (message,) = mistakes(recipe, *(f"{section}.{item}" for item in given))
    assert message.startswith(f"command line: {section}.{key}")
    assert says in message


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("cosine", "{num_cycles: 0.5}"),
        ("cosine_with_restarts", "{num_cycles: 3}"),
        ("polynomial", "{power: 2.0, lr_end: 0.0}"),
        ("linear", "{}"),
        ("constant", "{}"),
        ("constant_with_warmup", "{}"),
        ("inverse_sqrt", "{}"),
    ],
)
def test_what_a_schedule_takes_is_what_transformers_takes(recipe: Path, kind: str, kwargs: str) -> None:
    import torch
    from transformers.optimization import get_scheduler

    settings = frozen(
        recipe, f"train.llm.lr_scheduler_type={kind}", f"train.llm.lr_scheduler_kwargs={kwargs}"
    ).train.llm
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    made = get_scheduler(kind, optimizer, 1, 10, dict(settings.lr_scheduler_kwargs))
    optimizer.step()
    made.step()
    assert made.get_last_lr()[0] == pytest.approx(settings.learning_rate)


def test_steps_alone_or_a_number_of_batches_are_right(recipe: Path) -> None:
    config = frozen(
        recipe,
        "train.llm.max_steps=100",
        "train.llm.max_tokens_per_batch=1000",
        "train.llm.gradient_accumulation_steps=4",
        "train.flow.tokens_per_update=4000",
        "low_memory=true",
    )
    assert config.train.llm.max_steps == 100
    assert config.train.llm.gradient_accumulation_steps == 4
    assert config.train.flow.tokens_per_update == 4000


@pytest.mark.parametrize("section", ["train.llm", "train.flow", "train"])
@pytest.mark.parametrize("name", sorted(otherwise.TRAINING))
def test_names_of_other_trainers_below_train_are_refused_with_ours(recipe: Path, section: str, name: str) -> None:
    (message,) = mistakes(recipe, f"{section}.{name}=1")
    assert message.startswith(f"command line: unknown key '{section}.{name}': ")
    assert_names_exist(message)


@pytest.mark.parametrize("section", ["lora.llm", "lora.flow", "lora"])
@pytest.mark.parametrize("name", sorted(otherwise.LORA))
def test_names_of_other_trainers_below_lora_are_refused_with_ours(recipe: Path, section: str, name: str) -> None:
    (message,) = mistakes(recipe, f"{section}.{name}=1")
    assert message.startswith(f"command line: unknown key '{section}.{name}': ")
    assert_names_exist(message)


def assert_names_exist(message: str) -> None:
    """Every dotted name of the advice is a setting."""
    _, _, advice = message.partition("': ")
    assert "{at}" not in advice
    named = re.findall(r"\b(?:train|lora|audio)\.[\w.{},]*\w", advice)
    assert named or advice.startswith("leave it out")
    for name in named:
        for one in (name.replace("{llm,flow}", "llm"), name.replace("{llm,flow}", "flow")):
            assert flatten(Config(), [one]), one


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("train.llm.batch_size=8", ["train.llm.max_tokens_per_batch", "train.llm.tokens_per_update"]),
        ("train.flow.per_device_train_batch_size=8", ["train.flow.max_tokens_per_batch"]),
        ("train.llm.group_by_length=true", ["always"]),
        ("train.llm.evaluation_strategy=steps", ["train.llm.eval_strategy"]),
        ("train.llm.load_best_model_at_end=false", ["stage 5 chooses"]),
        ("train.precision=bf16", ["train.{llm,flow}.bf16=true", "train.{llm,flow}.fp16=true"]),
        ("train.modules=[llm]", ["train.mode=joint, llm_only or flow_only"]),
        ("train.flow.lr=1e-4", ["train.flow.learning_rate"]),
        ("train.llm.max_epoch=200", ["train.llm.num_train_epochs"]),
        ("train.llm.accum_grad=2", ["train.llm.gradient_accumulation_steps"]),
        ("train.llm.token_max_length=0", ["no clip is dropped", "audio.max_duration_s"]),
        ("train.llm.max_frames_in_batch=400", ["train.llm.max_tokens_per_batch"]),
        ("train.llm.logging_dir=logs", ["exp/<name>/<module>/tensorboard"]),
        ("train.llm.use_early_stopping=true", ["train.llm.early_stopping_patience"]),
        ("lora.llm.target_modules=[q_proj]", ["lora.llm.targets"]),
        ("lora.flow.alpha=32", ["lora.flow.lora_alpha"]),
        ("lora.rank=8", ["lora.{llm,flow}.r"]),
        ("token_max_length=0", ["no clip is dropped"]),
        ("lr=1e-4", ["train.{llm,flow}.learning_rate"]),
    ],
)
def test_what_to_write_instead(recipe: Path, wrong: str, says: list[str]) -> None:
    (message,) = mistakes(recipe, wrong)
    assert all(word in message for word in says), message


def test_upstreams_own_words_belong_to_its_own_section(recipe: Path) -> None:
    settings = frozen(recipe, "train.upstream.max_epoch=3", "train.upstream.accum_grad=4").train.upstream
    assert (settings.max_epoch, settings.accum_grad) == (3, 4)
    assert "did you mean 'train.upstream.max_frames_in_batch'" in mistakes(recipe, "train.upstream.max_frames=4")[0]


def test_the_card_is_no_part_of_what_a_stage_was_made_with(recipe: Path) -> None:
    """A finished run stays finished on another machine; a preset by name counts by the settings that it brings."""
    for one in STAGES:
        finish(recipe, one.name, frozen(recipe))
    assert frozen(recipe, "low_memory=true", first=8, last=8).low_memory
    messages = mistakes(recipe, "hardware=a100-40", first=8, last=8)
    changed = {message.partition(" was ")[0] for message in messages}
    assert {"lora.llm.r", "train.flow.max_tokens_per_batch"} <= changed
    assert all("stage 4 (train)" in message for message in messages)


def test_lengths_of_clips_that_cannot_be_cut(recipe: Path) -> None:
    (message,) = mistakes(recipe, "audio.segment.min_s=12")
    assert message == (
        "command line: audio.segment = {'min_s': 12}: two times margin_s must be less than min_s, and min_s less than "
        "max_s"
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("audio.segment.max_s=31", "segment.max_s (31.0) must not be above max_duration_s (30.0)"),
        ("audio.max_duration_s=9.5", "segment.max_s (10.0) must not be above max_duration_s (9.5)"),
        ("audio.min_duration_s=40", "min_duration_s (40.0) must not be above max_duration_s (30.0)"),
    ],
)
def test_lengths_that_contradict_each_other(recipe: Path, given: str, says: str) -> None:
    (message,) = mistakes(recipe, given)
    assert message.startswith("command line: audio = ") and message.endswith(f": {says}")


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("audio.keep=l2-x", "command line: audio.keep = 'l2-x': write audio.keep=[l2-x]"),
        (
            "train.llm.report_to=mlflow",
            "command line: train.llm.report_to = 'mlflow': write train.llm.report_to=[mlflow]",
        ),
        ("evaluate.sentences=a b", "command line: evaluate.sentences = 'a b': write 'evaluate.sentences=[a b]'"),
    ],
)
def test_a_text_where_a_list_is_wanted_says_how_to_write_one(recipe: Path, given: str, remedy: str) -> None:
    assert mistakes(recipe, given) == [remedy]


def test_a_text_in_conf_where_a_list_is_wanted(recipe: Path) -> None:
    (recipe / "conf.yaml").write_text("audio: {keep: l2-x}\n")
    assert mistakes(recipe)[0].endswith("audio.keep = 'l2-x': write keep: [l2-x]")
