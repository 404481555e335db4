"""launch/slurm.sh on a real Slurm with real Ray: how jobs end, what they leave behind, and when they run again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from slurm_rack import LAUNCHER, REPOSITORY, SMALL, Job, Rack, until, why_not

REASON = why_not()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=f"a Slurm of our own {REASON}")]
BOTH = ("--nodelist=n1,n2",)
LONG = ("steps=600", "step_s=0.1")


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    with Rack(tmp_path_factory.mktemp("r")) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def short_job(rack: Rack) -> Job:
    """A job of two minutes on a node of its own, with more to do than that; it runs while the other tests do.

    Slurm looks at the time every half a minute, so that the warning comes after 70 to 100 seconds.
    """
    options = ("--nodelist=n3", "--time=2", "--signal=B:USR1@20")
    return rack.submit("more=3", f"save={rack.work}/short", options=options)


@pytest.fixture(autouse=True)
def mended(rack: Rack) -> Iterator[None]:
    yield
    rack.mend()


def test_a_job_spreads_ray_over_its_nodes_ends_as_its_driver_does_and_leaves_nothing_behind(rack: Rack) -> None:
    """The first ports that it looks at are taken."""
    listener = "import socket, time; s = socket.create_server(('', 21001)); time.sleep(300)"
    rack.on_node(1, "bash", "-c", f'python3 -c "{listener}" >/dev/null 2>&1 & echo $! >/run/listener')
    env = {"MARKER": "a word", "RLHF_PORTS": "21000-21005"}
    job = rack.submit("actors=2", "steps=2", "fail=3", options=BOTH, env=env)
    ended = job.ended()
    rack.on_node(1, "bash", "-c", "kill $(cat /run/listener)")
    assert ended == "FAILED 3:0 restarts 0" and "the driver ended with 3" in job.output, job.output
    assert "Ray is up at 10.231.0.1:21003, nodes: 2" in job.output
    assert "DRIVER words config.yaml actors=2 steps=2 fail=3 runtime.name=ray runtime.address=auto\n" in job.output
    assert "DRIVER environment a word" in job.output
    for node in (1, 2):
        assert f"DRIVER actor on n{node} gpus" in job.output
        assert (job.log.parent / f"{job.number}.0" / f"ray-{node - 1}" / "raylet.out").exists(), "Ray's logs are kept"
    assert job.output.count("slurm variables 0") == 2
    rack.is_clean(1, 2)


def test_a_node_on_which_ray_does_not_start_ends_the_job_at_once(rack: Rack) -> None:
    rack.break_ray(2, "echo no such GPU; exit 127")
    job = rack.submit(options=BOTH, env={"RLHF_WAIT_S": "600"})
    assert job.ended(seconds=60) == "FAILED 69:0 restarts 0", job.output
    assert "n2: Ray ended there\n" in job.output and "no such GPU" in job.output
    assert "DRIVER" not in job.output
    rack.is_clean(1, 2)


def test_a_node_that_never_comes_up_ends_the_job_when_the_time_is_up(rack: Rack) -> None:
    rack.break_ray(2, "sleep 600")
    job = rack.submit(options=BOTH, env={"RLHF_WAIT_S": "8"})
    assert job.ended(seconds=60) == "FAILED 69:0 restarts 0", job.output
    assert "nodes did not join Ray (after 8 s)" in job.output
    assert "n2: started, but Ray did not join" in job.output
    assert "DRIVER" not in job.output
    rack.is_clean(1, 2)


def test_a_cancelled_job_leaves_no_process_and_no_file(rack: Rack) -> None:
    save = rack.work / "cancelled"
    job = rack.submit(*LONG, "actors=2", f"save={save}", options=BOTH)
    until(lambda: save.exists() or job.is_over(), "the driver is at work", seconds=90)
    rack.run("scancel", str(job.number))
    assert job.ended(seconds=40).startswith("CANCELLED"), job.output
    rack.is_clean(1, 2)
    assert "requeue" not in job.output
    assert 0 < int(save.read_text()) < 600


def test_a_job_is_requeued_when_ray_dies_on_a_node(rack: Rack) -> None:
    save = rack.work / "lost"
    job = rack.submit("steps=40", "step_s=0.1", "actors=2", f"save={save}", options=BOTH)
    until(lambda: bool(save.exists() and save.read_text()) or job.is_over(), "a step is saved", seconds=90)
    rack.on_node(2, "bash", "-c", "kill -9 $(pgrep -x raylet)")
    assert job.ended() == "COMPLETED 0:0 restarts 1", job.output
    assert "Ray is gone: n2" in job.output and "DRIVER is done after step 40" in job.output
    starts = [int(line.split()[-1]) for line in job.output.splitlines() if line.startswith("DRIVER starts at")]
    assert len(starts) == 2 and 0 < starts[1] < 40
    assert "slurm.sh: ray ended on n2" in job.ray_log(1)
    rack.is_clean(1, 2)


def test_a_warning_before_the_driver_runs_requeues_at_once(rack: Rack) -> None:
    """Here of a user who wants none of his variables in the job."""
    job = rack.submit(options=("--nodelist=n1", "--export=NONE"), env={"MARKER": "a word"})
    until(lambda: (job.log.parent / f"{job.number}.0" / "ray-0.log").exists(), "the job begins to start Ray")
    job.signal(signal.SIGUSR1)
    assert job.ended() == "COMPLETED 0:0 restarts 1", job.output
    assert job.output.count("DRIVER starts") == 1 and "DRIVER environment None" in job.output
    assert (job.log.parent / f"{job.number}.failures").read_text().count("\n") == 1


def test_a_job_that_reaches_nothing_is_not_requeued_for_ever(rack: Rack) -> None:
    """A driver that heeds no warning is killed by it."""
    job = rack.submit(*LONG, "deaf=yes", env={"RLHF_MAX_FAILURES": "0"})
    job.until_it_says("DRIVER starts")
    job.signal(signal.SIGUSR1)
    assert job.ended() == "FAILED 75:0 restarts 0", job.output
    assert "USR1 killed the driver" in job.output
    assert "not requeued" in job.output


def test_training_goes_on_after_a_requeue_with_one_log(rack: Rack) -> None:
    """`rlhf train` itself, over both nodes, with a reward worker, which gets every signal of its job too: first the one
    that the time is up, then a node is lost."""
    content = yaml.safe_load((REPOSITORY / "tests" / "integration" / "tiny.yaml").read_text())
    content["rewards"]["digits"]["isolate"] = True
    content["checkpoints"]["every"] = 1000
    content["sft"] |= {"steps": 40, "evaluate_every": 20}
    content["runtime"] = {"nodes": 2, "learner_ranks": 2, "gpus": "0"}
    for stage in ("sft", "rl"):
        content[stage]["learner"]["backend"] = {"name": "deepspeed_backend", "zero_stage": 1}
    (rack.work / "train.yaml").write_text(yaml.safe_dump(content))
    run = rack.work / "runs" / "tiny"
    env = {"RLHF_DRIVER": "", "RLHF_RAY_ARGS": SMALL.replace("--num-cpus=1", "--num-cpus=2")}
    job = rack.submit("seed=5", config="train.yaml", options=BOTH, env=env)
    until(lambda: len(steps_of(run)) > 4 or job.is_over(), "the run is on its way", seconds=180)
    job.signal(signal.SIGUSR1)
    until(lambda: "interrupted by SIGUSR1" in job.output or job.is_over(), "it is told that the time is up", seconds=60)
    [told] = [line for line in job.output.splitlines() if line.startswith("interrupted by SIGUSR1")]
    stopped = int(told.rpartition(" ")[2])
    assert 4 < stopped < 40
    until(lambda: len(steps_of(run)) > stopped or job.is_over(), "the run goes on", seconds=180)
    rack.on_node(2, "bash", "-c", "kill -9 $(pgrep -x raylet)")
    assert job.ended(seconds=240) == "COMPLETED 0:0 restarts 2", job.output
    assert "Ray is gone: n2" in job.output and "the driver ended with 70" in job.output
    assert steps_of(run) == list(range(1, 48))
    assert (run / "summary.json").exists()
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert all(sample["value"] is not None for sample in samples), "no worker was lost"
    rack.is_clean(1, 2)


def test_a_shell_of_salloc_is_told_where_it_is(rack: Rack) -> None:
    (rack.work / "config.yaml").touch()
    done = rack.run("salloc", "--nodelist=n1", "bash", str(LAUNCHER), "config.yaml", env=rack.environment())
    assert done.returncode == 2
    assert "runs on n1" in done.stderr and "is on ctl" in done.stderr and "fix: leave the allocation" in done.stderr


def test_a_job_goes_on_after_its_time_limit(short_job: Job, rack: Rack) -> None:
    assert short_job.ended(seconds=240) == "COMPLETED 0:0 restarts 1", short_job.output
    starts = [int(line.split()[-1]) for line in short_job.output.splitlines() if line.startswith("DRIVER starts at")]
    [saved] = [line for line in short_job.output.splitlines() if line.startswith("DRIVER saved step")]
    assert starts[0] == 0 < starts[1] and saved == f"DRIVER saved step {starts[1]} on SIGUSR1"
    assert f"DRIVER is done after step {starts[1] + 3}" in short_job.output
    assert not (short_job.log.parent / f"{short_job.number}.failures").exists(), "it has reached something"
    rack.is_clean(3)


def steps_of(run: Path) -> list[int]:
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]
