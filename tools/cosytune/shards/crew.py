"""The crew of stage 0 that works in shards, on as many machines as the launcher has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosytune import files
from cosytune.audio.listen import Heard
from cosytune.audio.probe import Broken
from cosytune.corpus.crew import Decoded, Made, Recording, Task
from cosytune.layout import Layout
from cosytune.parallel import Workers
from cosytune.quality import encoder
from cosytune.schema import Config
from cosytune.shards import launch, recordings


class InShards:
    """Tracks and clips lie beside the shards; they stay until the stage has done with them, be it killed on the way."""

    def __init__(self, config: Config, layout: Layout, workers: Workers) -> None:
        self._config, self._layout, self._workers = config, layout, workers

    def hear(self, these: Sequence[Recording]) -> tuple[list[Decoded], list[Heard]]:
        digests = self._workers.map(files.sha256, [one.audio for one in these], "hashing", "recording")
        items = [
            recordings.recording_item(self._layout, one, digest) for one, digest in zip(these, digests, strict=True)
        ]
        shards = launch.run(recordings.HEAR, self._config, self._layout, items)
        results = [row for shard in shards for row in recordings.heard(shard.table, shard.files)]
        decoded = [one for one, _ in results]
        if any(isinstance(one, Broken) for one in decoded):
            return decoded, []
        return decoded, [ear for _, ear in results if ear is not None]

    def make(self, tasks: Sequence[Task]) -> Iterator[list[Made]]:
        if not tasks:
            return
        encoder.ensure()  # once, not in every shard
        items = [recordings.task_item(self._layout, task) for task in tasks]
        for shard in launch.run(recordings.CLIPS, self._config, self._layout, items):
            of_task: dict[int, list[Made]] = {}
            for number, one in recordings.made(shard.table, shard.files):
                of_task.setdefault(number, []).append(one)
            yield from of_task.values()

    def forget_tracks(self) -> None:
        """Not yet: a run that is killed before its last file would have to decode everything again."""
