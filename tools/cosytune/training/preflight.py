"""Settings, features and this machine -> the mistakes of all modules at once, before a former run is touched.

The flow may be trained hours after the LLM: what is wrong with its settings is not to be found only then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cosytune import base, families, presets
from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.schema import Config, Module
from cosytune.training import hardware, job, processes, torchrun, trackers


def check(config: Config, layout: Layout, by_torchrun: bool = False) -> None:
    """Raise one UserError with a message for each mistake. `by_torchrun`: the processes are there already."""
    if config.train.engine == "upstream":
        checks: list[Callable[[], object]] = [partial(_upstream, config, by_torchrun)]
    else:
        checks = [partial(processes.num_processes, config)] if not by_torchrun else []
        for name in config.train.modules:
            checks += [partial(one, config, name) for one in (_trackers, _precision, _optimizer, _compiling, _targets)]
            checks.append(partial(_plan, config, layout, name))
    messages: list[str] = []
    statuses: list[int] = []
    for run in checks:
        try:
            run()
        except UserError as mistake:
            messages += mistake.messages
            statuses.append(mistake.exit_status)
    if messages:
        raise UserError(*dict.fromkeys(messages), exit_status=max(statuses))


def _upstream(config: Config, by_torchrun: bool) -> None:
    from cosytune.training import upstream_engine

    if by_torchrun:
        raise UserError(
            "train.engine = upstream: it starts its processes by itself; run the stage without torchrun, with "
            "train.num_processes"
        )
    upstream_engine.check(config)


def _trackers(config: Config, name: Module) -> None:
    trackers.require(getattr(config.train, name).report_to, f"train.{name}")


def _precision(config: Config, name: Module) -> None:
    """On a GPU the trainer looks by itself: asking takes memory of it, which this process would keep."""
    if config.device != "cpu" and processes.has_gpu():
        return
    try:
        hardware.settle(name, getattr(config.train, name), config.train, config.low_memory, None, 0)
    except UserError:
        if config.hardware == presets.AUTO:
            raise
        raise UserError(
            f"hardware = {config.hardware}: train.{name}.fp16 = true needs a GPU, and there is none; set hardware=auto"
        ) from None


def _optimizer(config: Config, name: Module) -> None:
    if config.train.distributed == "deepspeed" and getattr(config.train, name).optim == "adamw_8bit":
        raise UserError(
            f"train.{name}.optim = adamw_8bit: its state is quantized in blocks, which DeepSpeed cannot share out; set "
            f"train.{name}.optim=adamw_torch or train.distributed=ddp"
        )


def _compiling(config: Config, name: Module) -> None:
    """Ranks compile at different updates, for minutes: the others would take the one that does for dead."""
    if getattr(config.train, name).torch_compile and (torchrun.is_at_work() or processes.num_processes(config) > 1):
        raise UserError(f"train.{name}.torch_compile = true: not with several processes; set it to false")


def _targets(config: Config, name: Module) -> None:
    """Names of groups are known at once; a regular expression needs the module."""
    family, wanted = families.get(config.model), getattr(config.lora, name).targets
    groups = family.lora_targets[name]
    if all(target in groups for target in wanted):
        return
    from cosytune.training import adapters
    from cosytune.upstream import bridge

    build = {"llm": bridge.build_llm, "flow": bridge.build_flow}[name]
    try:
        adapters.expression(build(base.locate(config), family), wanted, groups)
    except UserError as mistake:
        messages = (message.removeprefix("lora target ") for message in mistake.messages)
        raise UserError(*(f"lora.{name}.targets: {message}" for message in messages)) from None


def _plan(config: Config, layout: Layout, name: Module) -> None:
    from cosytune.features import cache
    from cosytune.training import plan, tasks

    settings, family = getattr(config.train, name), families.get(config.model)
    task = tasks.LlmTask(settings, family) if name == "llm" else tasks.FlowTask(settings, 0.0)
    train, _ = (cache.open(path) for path in job.features(layout))
    budget = 1 if settings.max_tokens_per_batch == "auto" else settings.max_tokens_per_batch
    plan.make(train.utts, [task.length(length) for length in train.lengths], settings, budget, f"train.{name}")
