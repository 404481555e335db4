"""The launch scripts, run for real on a copy of the repository's launch folder, with a stand-in for Python.

The stand-in answers as the test says, makes environments that hold itself, and logs what it was asked to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cksum", "cp", "dirname", "grep", "mkdir", "mv", "rm", "sed", "uname")
"""All that the scripts may use besides Python: the tests run with nothing else on PATH."""

FAKE_PYTHON = r"""#!/bin/bash
case "$1 $2" in
  "-c "*ensurepip*) [ ! -e "$FAKE/no_ensurepip" ]; exit ;;
  "-c "*version_info*) [ ! -e "$FAKE/too_old" ]; exit ;;
  "-c "*) exit 0 ;;
esac
echo "$@" >>"$FAKE/log"
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip")
    [ ! -e "$FAKE/pip_dies" ] || kill -9 "$PPID"
    [ ! -e "$FAKE/pip_fails" ] || exit 1
    printf '#!/bin/bash\nprintf "%%s\\n" "$PWD" "$@"\n' >"${0%/python}/rlhf" && chmod +x "${0%/python}/rlhf"
    ;;
  *) echo "$2 ran"; [ ! -e "$FAKE/$2_fails" ]; exit ;;
esac
"""


@dataclass
class Sandbox:
    """A copy of the repository's launch scripts, and the switches of the stand-in."""

    root: Path
    fake: Path
    path: Path
    env: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def log(self) -> list[str]:
        """What Python was asked to do since the last look."""
        file = self.fake / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line.replace(str(self.root), "ROOT") for line in lines]

    def run(self, script: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.path), "FAKE": str(self.fake), **self.env}
        command = ["bash", str(self.root / script), *arguments]
        return subprocess.run(command, env=env, cwd=cwd or self.root, capture_output=True, text=True, timeout=30)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = Sandbox(tmp_path / "re po", tmp_path / "fake", tmp_path / "bin")
    made.fake.mkdir()
    made.path.mkdir()
    for tool in (*TOOLS, "chmod"):
        found = shutil.which(tool)
        assert found, tool
        (made.path / tool).symlink_to(found)
    shutil.copytree(REPOSITORY / "launch", made.root / "launch")
    shutil.copytree(REPOSITORY / ".ci", made.root / ".ci")
    shutil.copy(REPOSITORY / "pyproject.toml", made.root)
    install_python(made, "python3.12")
    return made


def install_python(sandbox: Sandbox, name: str) -> None:
    file = sandbox.path / name
    file.write_text(FAKE_PYTHON)
    file.chmod(0o755)


def test_first_use_installs_the_pinned_torch_then_trains_the_quickstart(sandbox: Sandbox, tmp_path: Path) -> None:
    done = sandbox.run("launch/local.sh", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # The run starts where the user is, and standard output is the run's alone.
    assert done.stdout.splitlines() == [str(tmp_path), "train", f"{sandbox.root}/configs/quickstart.yaml"]
    assert sandbox.log() == [
        "-m venv ROOT/.venv",
        "-m pip install --disable-pip-version-check torch==2.13.0 --editable ROOT",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["mine.yaml", "seed=3", "run.name=a b"], ["train", "mine.yaml", "seed=3", "run.name=a b"]),
        (["rl.steps=2"], ["train", "QUICKSTART", "rl.steps=2"]),
    ],
)
def test_config_and_overrides_reach_the_command(sandbox: Sandbox, given: list[str], expected: list[str]) -> None:
    done = sandbox.run("launch/local.sh", *given)
    quickstart = f"{sandbox.root}/configs/quickstart.yaml"
    assert done.stdout.splitlines()[1:] == [quickstart if word == "QUICKSTART" else word for word in expected]


def test_a_second_call_installs_nothing(sandbox: Sandbox) -> None:
    sandbox.run("launch/local.sh")
    sandbox.log()
    assert sandbox.run("launch/local.sh").returncode == 0
    assert sandbox.log() == []


def test_changed_dependencies_are_installed_into_the_same_environment(sandbox: Sandbox) -> None:
    sandbox.run("launch/local.sh")
    sandbox.log()
    (sandbox.venv / "mark").touch()
    with (sandbox.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    sandbox.run("launch/local.sh")
    assert [line.split()[1] for line in sandbox.log()] == ["pip"]
    assert (sandbox.venv / "mark").exists()


def test_another_torch_can_be_chosen(sandbox: Sandbox) -> None:
    sandbox.run("launch/local.sh")
    sandbox.log()
    sandbox.env["RLHF_TORCH"] = "torch==2.14.0"
    sandbox.run("launch/local.sh")
    assert "torch==2.14.0" in sandbox.log()[0]


def test_tests_and_training_share_one_environment(sandbox: Sandbox) -> None:
    sandbox.run("launch/local.sh")
    sandbox.log()
    sandbox.run("launch/test.sh", "-k", "x")
    assert sandbox.log() == [
        "-m pip install --disable-pip-version-check torch==2.13.0 --editable ROOT[test]",
        "-m pip uninstall --disable-pip-version-check --yes torchvision torchaudio torchcodec scikit-learn",
        "-m pytest -k x",
    ]
    # What serves the tests serves training too.
    sandbox.run("launch/local.sh")
    assert sandbox.log() == []


@pytest.mark.parametrize("how", ["pip_fails", "pip_dies"])
def test_an_unfinished_installation_is_made_anew(sandbox: Sandbox, how: str) -> None:
    (sandbox.fake / how).touch()
    assert sandbox.run("launch/local.sh").returncode != 0
    (sandbox.fake / how).unlink()
    (sandbox.venv / "half").touch()
    sandbox.log()
    done = sandbox.run("launch/local.sh")
    assert done.returncode == 0 and "interrupted" in done.stderr
    assert [line.split()[1] for line in sandbox.log()] == ["venv", "pip"]
    assert not (sandbox.venv / "half").exists()


def test_an_installation_under_way_is_left_alone(sandbox: Sandbox) -> None:
    sandbox.venv.mkdir()
    (sandbox.venv / ".rlhf-unfinished").write_text(f"{os.uname().nodename} {os.getpid()}\n")
    done = sandbox.run("launch/local.sh")
    assert done.returncode == 2 and f"process {os.getpid()}" in done.stderr
    assert sandbox.venv.exists() and sandbox.log() == []


def test_an_environment_of_the_users_own_is_installed_into_but_never_removed(sandbox: Sandbox, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "bin").mkdir(parents=True)
    shutil.copy(sandbox.path / "python3.12", own / "bin" / "python")
    (own / "precious").touch()
    sandbox.env["RLHF_VENV"] = "own"
    (sandbox.fake / "pip_fails").touch()
    assert sandbox.run("launch/local.sh", cwd=tmp_path).returncode == 2
    (sandbox.fake / "pip_fails").unlink()
    assert sandbox.run("launch/local.sh", cwd=tmp_path).returncode == 0
    assert (own / "precious").exists()
    assert [line.split()[1] for line in sandbox.log()] == ["pip", "pip"]


def test_a_folder_that_is_no_environment_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    sandbox.env["RLHF_VENV"] = str(tmp_path / "papers")
    done = sandbox.run("launch/local.sh")
    assert done.returncode == 2 and "no virtual environment" in done.stderr
    assert sandbox.log() == []


@pytest.mark.parametrize(
    ("switch", "message"),
    [("too_old", "no Python 3.11 or newer"), ("no_ensurepip", "apt install python3.12-venv")],
)
def test_an_unfit_python_is_explained(sandbox: Sandbox, switch: str, message: str) -> None:
    (sandbox.fake / switch).touch()
    done = sandbox.run("launch/local.sh")
    assert done.returncode == 2 and message in done.stderr
    assert not sandbox.venv.exists()


def test_an_unfit_python_is_passed_over(sandbox: Sandbox) -> None:
    broken = sandbox.path / "python3.13"
    broken.write_text("#!/bin/bash\nexit 127\n")
    broken.chmod(0o755)
    assert sandbox.run("launch/local.sh").returncode == 0


def test_all_checks_run_and_the_tests_come_last(sandbox: Sandbox) -> None:
    done = sandbox.run(".ci/run")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "pytest ran"
    checks = "venv pip pip ruff ruff pyright rlhf.cli rlhf.cli rlhf.cli rlhf.cli rlhf.cli pytest"
    assert " ".join(line.split()[1] for line in sandbox.log()) == checks


@pytest.mark.parametrize("broken", ["ruff", "pyright", "pytest"])
def test_a_failing_check_fails_the_whole_but_hides_nothing(sandbox: Sandbox, broken: str) -> None:
    (sandbox.fake / f"{broken}_fails").touch()
    done = sandbox.run(".ci/run")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "pytest ran"
    assert ("FAILED before the tests" in done.stdout) == (broken != "pytest")


FAKE_APT = r"""#!/bin/bash
echo "apt-get $1 ${@: -1}" >>"$FAKE/log"
[ ! -e "$FAKE/apt_fails" ]
"""
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root is offered packages")


def offer_apt(sandbox: Sandbox) -> None:
    (sandbox.path / "apt-get").write_text(FAKE_APT)
    (sandbox.path / "apt-get").chmod(0o755)
    assert sandbox.run("launch/test.sh", "-k", "x").returncode == 0
    assert not [line for line in sandbox.log() if line.startswith("apt-get")], "not for some tests"


@ROOT_ONLY
@pytest.mark.parametrize("works", [True, False])
def test_root_gets_slurm_for_the_tests_where_it_can_be_had(works: bool, sandbox: Sandbox) -> None:
    offer_apt(sandbox)
    if not works:
        (sandbox.fake / "apt_fails").touch()
    done = sandbox.run("launch/test.sh")
    asked = [line for line in sandbox.log() if line.startswith("apt-get")]
    assert asked == ["apt-get update Acquire::http::Timeout=20", "apt-get install procps"][: 2 if works else 1]
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "pytest ran"
    assert ("will be skipped" in done.stderr) != works


@ROOT_ONLY
def test_nothing_is_installed_for_tests_that_are_left_out(sandbox: Sandbox) -> None:
    offer_apt(sandbox)
    sandbox.env["RLHF_CLUSTER"] = "no"
    assert sandbox.run("launch/test.sh").returncode == 0
    assert not [line for line in sandbox.log() if line.startswith("apt-get")]


@ROOT_ONLY
def test_packages_that_are_there_or_not_wanted_are_not_installed(sandbox: Sandbox) -> None:
    offer_apt(sandbox)
    sandbox.env["RLHF_APT"] = "no"
    assert sandbox.run("launch/test.sh").returncode == 0
    del sandbox.env["RLHF_APT"]
    for tool in ("slurmctld", "slurmd", "sbatch", "munged", "ip", "pgrep"):
        (sandbox.path / tool).symlink_to("/bin/true")
    assert sandbox.run("launch/test.sh").returncode == 0
    assert not [line for line in sandbox.log() if line.startswith("apt-get")]


@pytest.mark.skipif(os.geteuid() == 0, reason="is about everybody but root")
def test_nobody_but_root_is_given_packages(sandbox: Sandbox) -> None:
    offer_apt(sandbox)
    assert sandbox.run("launch/test.sh").returncode == 0
    assert not [line for line in sandbox.log() if line.startswith("apt-get")]


FAKE_SBATCH = r"""#!/bin/bash
printf '%s\n' "$@" -- >>"$FAKE/submitted"
echo "$((40 + $(grep -cx -- -- "$FAKE/submitted")));cluster"
"""
FAKE_RLHF = r"""#!/bin/bash
printf '%s\n' "$@" -- >>"$FAKE/rlhf"
[ ! -e "$FAKE/rlhf_fails" ] || { echo "error: arms.two: no" >&2; exit 2; }
echo "a line before"
echo "6 $FAKE/my sweeps/fight"
"""


def slurm(sandbox: Sandbox) -> None:
    """A cluster's sbatch, and an `rlhf` that says how many runs there are."""
    assert sandbox.run("launch/local.sh").returncode == 0
    for path, text in ((sandbox.path / "sbatch", FAKE_SBATCH), (sandbox.venv / "bin" / "rlhf", FAKE_RLHF)):
        path.write_text(text)
        path.chmod(0o755)
    for tool in ("basename", "tail"):
        (sandbox.path / tool).symlink_to(str(shutil.which(tool)))


def test_a_sweep_is_an_array_of_its_runs_and_a_job_that_collects(sandbox: Sandbox) -> None:
    slurm(sandbox)
    done = sandbox.run("launch/slurm.sh", "--sweep", "my fight.yaml", "seeds=[0,1]", "--", "--time=5", "--gpus=1")
    assert done.returncode == 0, done.stderr
    folder, rlhf = f"{sandbox.fake}/my sweeps/fight", f"{sandbox.venv}/bin/rlhf"
    assert done.stdout == f"submitted: array 41 of 6 runs, then job 42 writes {folder}/report.html\n"
    assert Path(folder, "slurm").is_dir()
    asked = (sandbox.fake / "rlhf").read_text().splitlines()
    assert asked == ["sweep", "my fight.yaml", "seeds=[0,1]", "--prepare", "--"]
    array, collect, _ = (part.splitlines() for part in (sandbox.fake / "submitted").read_text().split("\n--\n"))
    assert {"--array=0-5", "--time=5", "--gpus=1", "--requeue", f"--output={folder}/slurm/%a.log"} <= set(array)
    assert "--dependency=afterany:41" in collect and "--time=5" not in collect
    command = f"exec {rlhf.replace(' ', chr(92) + ' ')} sweep my\\ fight.yaml seeds=\\[0\\,1\\]  "
    assert [words[-1] for words in (array, collect)] == [
        command + '--share "$SLURM_ARRAY_TASK_ID/6"',
        command + "--collect",
    ]


def test_a_sweep_that_cannot_run_is_not_submitted(sandbox: Sandbox) -> None:
    slurm(sandbox)
    (sandbox.fake / "rlhf_fails").touch()
    done = sandbox.run("launch/slurm.sh", "--sweep", "fight.yaml")
    assert done.returncode == 2 and "arms.two" in done.stderr and "nothing was submitted" in done.stderr
    assert not (sandbox.fake / "submitted").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give CONFIG, or --sweep FILE"),
        (["--swep", "x"], "give CONFIG, or --sweep FILE"),
        (["missing.yaml"], "there is no config missing.yaml"),
        (["pyproject.toml"], "no sbatch"),
        (["--sweep"], "needs a file"),
        (["--sweep", "x"], "no sbatch"),
    ],
)
def test_a_submission_that_cannot_be_made_says_why(sandbox: Sandbox, given: list[str], message: str) -> None:
    done = sandbox.run("launch/slurm.sh", *given)
    assert done.returncode == 2 and message in done.stderr and sandbox.log() == []


def test_a_job_runs_the_script_where_it_lies_with_the_present_settings(sandbox: Sandbox, tmp_path: Path) -> None:
    slurm(sandbox)
    (sandbox.venv / "bin" / "ray").symlink_to(sandbox.venv / "bin" / "rlhf")
    (tmp_path / "my config.yaml").touch()
    sandbox.env |= {"RLHF_WAIT_S": "7", "RLHF_DRIVER": "a driver"}
    done = sandbox.run("launch/slurm.sh", "my config.yaml", "run.name=a b", "--", "--nodes=2", "-t", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"submitted: job 41, log {tmp_path}/slurm/41.log\n"
    assert "-m pip install --disable-pip-version-check torch==2.13.0 --editable ROOT[cluster]" in sandbox.log()
    words = (sandbox.fake / "submitted").read_text().splitlines()
    assert {"--requeue", "--signal=B:USR1@120", "--job-name=my config", f"--output={tmp_path}/slurm/%j.log"} <= set(
        words
    )
    assert words.index("--nodes=2") > words.index("--signal=B:USR1@120"), "what the user says comes last and wins"
    said = subprocess.run(
        ["bash", "-c", words[-2].replace("exec env", "printf '%s\\n'")], capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == [
        "RLHF_DRIVER=a driver",
        "RLHF_WAIT_S=7",
        f"RLHF_LOGS={tmp_path}/slurm",
        "bash",
        f"{sandbox.root}/launch/slurm.sh",
        "my config.yaml",
        "run.name=a b",
    ]


def test_an_environment_without_ray_is_refused(sandbox: Sandbox) -> None:
    slurm(sandbox)
    done = sandbox.run("launch/slurm.sh", "pyproject.toml")
    assert done.returncode == 2 and f"{sandbox.venv} has no ray" in done.stderr
    assert not (sandbox.fake / "submitted").exists()


def test_options_for_sbatch_are_refused_inside_of_a_job(sandbox: Sandbox) -> None:
    sandbox.env["SLURM_JOB_ID"] = "5"
    done = sandbox.run("launch/slurm.sh", "pyproject.toml", "--", "--nodes=2")
    assert done.returncode == 2 and "leave out what follows --" in done.stderr


def test_the_scripts_parse_and_explain_themselves(sandbox: Sandbox) -> None:
    for script in ("launch/local.sh", "launch/test.sh", "launch/slurm.sh"):
        done = sandbox.run(script, "--help")
        assert done.returncode == 0 and script in done.stdout
        assert sandbox.log() == []
        assert os.access(REPOSITORY / script, os.X_OK)
