"""In place of stages/train.py in the slim image, which has no torch: counts updates, and stops as the trainer does."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cosytune import files
from cosytune.training import signals

place = Path(sys.argv[1]).parent / "checkpoint.json"
update = json.loads(place.read_text())["update"] if place.exists() else 0
if update:
    print(f"goes on from update {update}")
with signals.listening() as stop:
    while update < 10_000 and not stop.received:
        time.sleep(0.05)
        update += 1
        if update % 5 == 0:
            print(f"update {update}")
    files.write_json(place, {"update": update})
if stop.received:
    stopped = signals.Stopped(stop.received)
    print(stopped, file=sys.stderr)
    sys.exit(stopped.exit_status)
