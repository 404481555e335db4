"""A driver for launch/slurm.sh that takes seconds, in place of `rlhf train`: `driver.py CONFIG key=value …`.

    steps=N      how many steps, of step_s seconds each; 1
    more=N       instead: no end until a signal comes, and N steps after taking up
    save=FILE    where the step that was reached is kept, and taken up from
    actors=N     Ray actors do the steps, each on a node of its own; otherwise it connects to no Ray
    deaf=yes     heed no signal
    fail=CODE    end with this code after the last step

After SIGUSR1 and SIGTERM it ends its step and itself, with 75 and 143.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

words = dict(word.split("=", 1) for word in sys.argv[2:])
step_s, save = float(words.get("step_s", 0.1)), Path(words.get("save", os.devnull))
caught: list[int] = []


def catch(number: int, frame: FrameType | None) -> None:
    caught.append(number)


def say(text: str) -> None:
    print(f"DRIVER {text}", flush=True)


def heed_signals() -> None:
    if "deaf" not in words:
        signal.signal(signal.SIGUSR1, catch)
        signal.signal(signal.SIGTERM, catch)


def main() -> int:
    heed_signals()
    say(f"words {' '.join(sys.argv[1:])}")
    say(f"environment {os.environ.get('MARKER')} files {os.popen('ulimit -Sn').read().strip()}")
    work = with_actors(int(words["actors"])) if "actors" in words else time.sleep
    heed_signals()  # ray.init has put a handler of its own in their place
    start = int(save.read_text() or 0) if save.exists() else 0
    say(f"starts at {start}")
    steps = int(words.get("steps", 1))
    if "more" in words:
        steps = start + int(words["more"]) if start else sys.maxsize
    for step in range(start + 1, steps + 1):
        work(step_s)
        save.write_text(str(step))
        if caught:
            say(f"saved step {step} on {signal.Signals(caught[0]).name}")
            return {signal.SIGUSR1: 75, signal.SIGTERM: 143}[signal.Signals(caught[0])]
    say(f"is done after step {steps}")
    return int(words.get("fail", 0))


def with_actors(count: int) -> Callable[[float], object]:
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    ray.init(address="auto")

    @ray.remote(num_cpus=1, num_gpus=2)
    class Worker:
        def where(self) -> str:
            slurm = sum(name.startswith("SLURM_") for name in os.environ)
            return f"{os.uname().nodename} gpus {os.environ['CUDA_VISIBLE_DEVICES']} slurm variables {slurm}"

        def work(self, seconds: float) -> None:
            time.sleep(seconds)

    group = placement_group([{"CPU": 1, "GPU": 2}] * count, strategy="STRICT_SPREAD")
    assert group.wait(30), "no room for the actors"
    strategies = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(count)]
    workers = [Worker.options(scheduling_strategy=strategy).remote() for strategy in strategies]
    for told in sorted(ray.get([worker.where.remote() for worker in workers])):
        say(f"actor on {told}")
    return lambda seconds: ray.get([worker.work.remote(seconds) for worker in workers])


if __name__ == "__main__":
    sys.exit(main())
