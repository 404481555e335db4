"""The command `rlhf`: one file of arguments, one function per verb; everything else happens in the loops.

Exit codes: 0 done, 1 `rlhf doctor` or `rlhf audit` found a problem, 2 something the user can mend (one message: where,
what, fix), 70 a process of the run is lost and could not be brought back, 75 stopped by SIGUSR1 and worth starting
again, 130 and 143 interrupted by Ctrl-C and SIGTERM; anything else is a bug and shows its traceback. Heavy imports wait
until a verb needs them.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from rlhf.core.process import importing
from rlhf.loops.ending import ending
from rlhf.loops.interrupt import Interrupt

SPIN_COUNT = "3000"
"""How often a waiting thread looks before it sleeps. Threads that spin for long take the core from the thread they wait
for: beside one busy process, training on two cores became over ten times slower."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    arguments = _parse(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Read once, when torch loads its OpenMP runtime (GNU's, in the wheels for Linux).
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # transformers imports DeepSpeed where it is installed, which then says on standard output that there is no GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    sys.path.insert(0, os.getcwd())
    # asyncio would turn the first Ctrl-C into a cancellation, which a loop that never waits does not notice.
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return arguments.verb(arguments) or 0
    except BaseException as error:
        code = ending(error)
        if code is None:
            raise
        return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; overrides may also stand behind an option, which argparse alone would not take."""
    parser = _parser()
    arguments, late = parser.parse_known_args(argv)
    if late and ("overrides" not in arguments or any(word.startswith("-") for word in late)):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rlhf", description="RL post-training with verifiable rewards.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: object, help: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help, description=help)
        sub.set_defaults(verb=function)
        return sub

    for name, function, text in (
        ("train", _train, "run a config, or continue it where it stopped"),
        ("plan", _plan, "say what a config would do, without doing it; refuses what cannot run"),
        ("generate", _generate, "write a dataset of scored samples from a model (a config with generate stages)"),
    ):
        sub = verb(name, function, text)
        sub.add_argument("config", type=Path)
        sub.add_argument("overrides", nargs="*", metavar="key=value")
        if function is _generate:
            note = "what makes the rows, in every stage: samples (the default), or another of `rlhf components`"
            sub.add_argument("--build", metavar="NAME", help=note)
        if function is _train:
            note = "take the stages before the last one from here, or make them here for other runs to take"
            sub.add_argument("--cache", type=Path, metavar="FOLDER", help=note)
    _evaluation(verb)
    sub = verb("report", _report, "write report.html of a run, finished or not")
    sub.add_argument("run", type=Path)
    sub = verb("replay", _replay, "generate one recorded sample again and explain its reward, advantage and loss")
    sub.add_argument("run", type=Path)
    sub.add_argument("sample_id")
    sub = verb("diagnose", _diagnose, "say why a run's sampler and trainer disagree about log-probs, and what to do")
    sub.add_argument("run", type=Path)
    note = "smallest mean gap to look for causes of, in nats per token (default 0.01)"
    sub.add_argument("--above", type=float, default=0.01, metavar="GAP", help=note)
    _lab(verb)
    _studies(verb)
    _models(verb)
    _data(verb)
    sub = verb("doctor", _doctor, "check the installation and this machine, and what a config needs; says what to do")
    sub.add_argument("config", type=Path, nargs="?")
    sub.add_argument("overrides", nargs="*", metavar="key=value")
    verb("tasks", _tasks, "list the tasks that ship, with their keys")
    verb("components", _components, "list every component that ships, by slot")
    return parser


def _evaluation(verb: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    """What measures a model."""
    sub = verb("evaluate", _evaluate, "measure held-out accuracy of a config's model, or of a run's last checkpoint")
    sub.add_argument("target", type=Path, metavar="CONFIG|RUN")
    sub.add_argument("overrides", nargs="*", metavar="key=value")
    sub.add_argument("--out", type=Path, help="write the numbers as JSON")
    note = "measure the process reward model instead: how well it finds the first wrong step of labelled solutions"
    other = sub.add_mutually_exclusive_group()
    other.add_argument("--process", type=Path, action="append", metavar="FILE", help=f"{note}; once per subset")
    note = "also fit a temperature to the confidence of the sampled answers, and say what it mends"
    other.add_argument("--calibrate", action="store_true", help=note)
    note = "search instead which of a file's instructions makes the policy answer best"
    other.add_argument("--prompts", type=Path, metavar="FILE", help=note)
    note = "ask instead on the levels of a file, each with more help, until an answer is right"
    other.add_argument("--ladder", type=Path, metavar="FILE", help=note)
    note = "run a task of lm-evaluation-harness instead, once per task (pip install 'rlhf[lm-eval]')"
    other.add_argument("--harness", action="append", metavar="TASK", help=note)
    sub.add_argument("--limit", type=int, metavar="N", help="documents per task of the harness, at most")
    sub.add_argument("--include", type=Path, metavar="FOLDER", help="task files of your own for the harness")
    sub.add_argument("--chat", action="store_true", help="render the harness's prompts by the model's chat template")
    note = "draw accuracy against k and tokens, reliability, accuracy of the most confident answers"
    sub.add_argument("--picture", type=Path, metavar="FILE.svg|png", help=note)


def _studies(verb: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    """What looks at several runs."""
    sub = verb("sweep", _sweep, "run an ablation: arms by seeds, in parallel, to a verdict; continues where it stopped")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="keys of FILE; set.KEY=value for every run")
    sub.add_argument("--no-cache", action="store_true", help="run every stage of every run, share none")
    sub.add_argument("--share", metavar="I/N", help="run only the I-th of N shares of the runs, for array jobs")
    other = sub.add_mutually_exclusive_group()
    other.add_argument("--ray", metavar="ADDRESS", help="run them as jobs of a Ray cluster: http://HOST:8265, or auto")
    other.add_argument("--plan", action="store_true", help="check every arm and say what would run")
    note = "write the configs of the arms; print how many runs, and the folder"
    other.add_argument("--prepare", action="store_true", help=note)
    other.add_argument("--collect", action="store_true", help="run nothing, write the result of what has run")
    sub = verb("compare", _compare, "compare finished runs: configs, metrics with intervals, paired by seed and prompt")
    sub.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    sub.add_argument("--out", type=Path, metavar="FILE.html", help="write a page, and FILE.json beside it")
    sub = verb("profile", _profile, "say which method reaches its target first, over the tasks of sweeps or runs")
    sub.add_argument("sources", nargs="+", metavar="[TASK=]SWEEP|[METHOD=]RUN", help="RUN may be a pattern")
    sub.add_argument("--target", action="append", metavar="[TASK=]VALUE", help="default: the best of the baseline")
    sub.add_argument("--metric", metavar="KEY", help="* stands for the task; default: sampled accuracy")
    sub.add_argument("--lower", action="store_true", help="smaller is better")
    sub.add_argument("--cost", choices=("steps", "tokens", "seconds"), default="steps", help="default: steps")
    sub.add_argument("--after", default="", metavar="STAGE", help="count from its end on, as after a common warm start")
    sub.add_argument("--method", action="append", metavar="NAME", help="compare those so named alone")
    sub.add_argument("--out", type=Path, metavar="FILE.json", help="write the numbers")
    sub.add_argument("--picture", type=Path, metavar="FILE.svg|png", help="draw the profiles and every task's ratios")


def _models(verb: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    """What makes models without training."""
    sub = verb("merge", _merge, "make one model of several fine-tunes of the same base, by sparse task vectors")
    sub.add_argument("file", type=Path, metavar="FILE", help="a merge: base, models, weights; see configs/merge")
    sub.add_argument("overrides", nargs="*", metavar="key=value")


def _data(verb: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    """What looks at data before anything trains on it."""
    sub = verb("clean", _clean, "leave out of training data what stands in evaluation sets; says what and why")
    sub.add_argument("file", type=Path, metavar="FILE", help="data, against, out; see configs/care")
    sub.add_argument("overrides", nargs="*", metavar="key=value")


def _lab(verb: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    """The verbs of the reward lab."""
    sub = verb("score", _score, "grade a file of completions by the rewards of a config")
    sub.add_argument("file", type=Path, help="rows with prompt, gold and completion: .jsonl, .json or .parquet")
    sub.add_argument("overrides", nargs="*", metavar="key=value")
    sub.add_argument("--config", type=Path, required=True, help="its `rewards` and `rubric` grade")
    sub.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write every row with what it got")
    for name in ("prompt", "gold", "completion"):
        sub.add_argument(f"--{name}", default="", metavar="COLUMN", help=f"where the {name} stands, if not where usual")
    sub.add_argument("--gold-after", default="", metavar="MARK", help="the gold is what follows this in its column")
    sub.add_argument("--tokenizer", default="", metavar="FOLDER", help="for rewards that count tokens")
    sub = verb("rescore", _rescore, "grade a run's samples by another config: which verdicts, ranks, advantages change")
    sub.add_argument("run", type=Path)
    sub.add_argument("overrides", nargs="*", metavar="key=value")
    sub.add_argument(
        "--config", type=Path, help="a recipe, or what is different from the run's own; else the run's own"
    )
    note = "write a page, and beside it every sample that changes as FILE.jsonl"
    sub.add_argument("--out", type=Path, metavar="FILE.html", help=note)
    sub = verb("audit", _audit, "measure verifiers on labelled and hostile answers; exit code 1 when one falls short")
    sub.add_argument("file", type=Path, metavar="FILE", help="an audit: corpora, graders and limits; see configs/audit")
    sub.add_argument("overrides", nargs="*", metavar="key=value")
    note = "write a page with every disagreement, and its figures as FILE.json"
    sub.add_argument("--out", type=Path, metavar="FILE.html", help=note)


def _train(arguments: argparse.Namespace) -> None:
    with Interrupt() as interrupt:
        with importing():
            from rlhf.loops import pipeline, settings

        experiment = settings.read(arguments.config, arguments.overrides)
        pipeline.train(experiment, cache=arguments.cache, interrupt=interrupt)


def _generate(arguments: argparse.Namespace) -> None:
    with Interrupt() as interrupt:
        with importing():
            from rlhf.core.errors import ConfigError
            from rlhf.loops import pipeline, settings

        experiment = settings.read(arguments.config, arguments.overrides)
        if arguments.build is not None:
            chosen = [f"{stage.name}.build.name={arguments.build}" for stage in experiment.stages]
            experiment = settings.read(arguments.config, [*arguments.overrides, *chosen])
        others = [s.name for s in experiment.stages if s.loop != "generate"]
        if others:
            fix = "use `rlhf train`, or a config whose stages all have loop: generate"
            raise ConfigError("stages", f"{others} would train", fix=fix)
        folder = pipeline.train(experiment, interrupt=interrupt)
    for stage in experiment.stages:
        print(f"{stage.name}: {folder / 'data' / (stage.name + '.jsonl')}")


def _plan(arguments: argparse.Namespace) -> None:
    with importing():
        from rlhf.loops import plan, settings

    plan.show(settings.read(arguments.config, arguments.overrides))


def _evaluate(arguments: argparse.Namespace) -> None:
    with importing():
        from rlhf.loops import calibrate, ladder, measure, picture, processbench, prompt_search

    for file, other in ((arguments.prompts, prompt_search.evaluate), (arguments.ladder, ladder.evaluate)):
        if file is not None:
            other(arguments.target, arguments.overrides, file, out=arguments.out)
            return
    if arguments.process:
        processbench.evaluate(arguments.target, arguments.overrides, arguments.process, out=arguments.out)
        return
    if arguments.harness:
        _harness(arguments)
        return
    results = measure.evaluate(arguments.target, arguments.overrides, out=arguments.out)
    if arguments.calibrate:
        calibrate.show(results, out=arguments.out)
    if arguments.picture is not None:
        print(f"picture: {picture.write(results, arguments.picture)}")


def _harness(arguments: argparse.Namespace) -> None:
    from rlhf.core.errors import ConfigError

    try:
        from rlhf.lab import harness
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lm_eval"):
            raise
        raise ConfigError("--harness", "lm_eval is not installed", fix="pip install 'rlhf[lm-eval]'") from error
    given = {name: vars(arguments)[name] for name in ("out", "limit", "include", "chat")}
    harness.evaluate(arguments.target, arguments.overrides, arguments.harness, **given)


def _report(arguments: argparse.Namespace) -> None:
    with importing():
        from rlhf.loops import measure

    print(measure.report(arguments.run))


def _replay(arguments: argparse.Namespace) -> None:
    with importing():
        from rlhf.loops import replay

    replay.show(arguments.run, arguments.sample_id)


def _diagnose(arguments: argparse.Namespace) -> None:
    with importing():
        from rlhf.loops import diagnose

    diagnose.show(arguments.run, above=arguments.above)


def _score(arguments: argparse.Namespace) -> None:
    from rlhf.lab import score
    from rlhf.lab.completions import Columns

    given = {name: vars(arguments)[name] for name in ("prompt", "gold", "completion", "gold_after")}
    found = score.score(
        arguments.file, arguments.config, arguments.overrides, columns=Columns(**given), tokenizer=arguments.tokenizer
    )
    score.show(found, title=f"{arguments.file} by {arguments.config}")
    if arguments.out is not None:
        score.write(found, arguments.out)


def _rescore(arguments: argparse.Namespace) -> None:
    from rlhf.lab import rescore, rescore_page

    found = rescore.rescore(arguments.run, arguments.config, arguments.overrides)
    rescore_page.show(found)
    if arguments.out is not None:
        by = [] if arguments.config is None else ["--config", str(arguments.config)]
        words = ["rlhf", "rescore", str(arguments.run), *by, *arguments.overrides]
        title = " ".join([f"{arguments.run.name} by", str(arguments.config or "its own config"), *arguments.overrides])
        rescore_page.write(found, arguments.out, command=shlex.join(words), title=title)


def _audit(arguments: argparse.Namespace) -> int:
    from rlhf.lab import audit, audit_page

    found = audit.audit(arguments.file, arguments.overrides)
    audit_page.show(found)
    if arguments.out is not None:
        words = ["rlhf", "audit", str(arguments.file), *arguments.overrides]
        audit_page.write(found, arguments.out, command=shlex.join(words))
    return 0 if found.holds else 1


def _sweep(arguments: argparse.Namespace) -> None:
    with importing():
        from rlhf.sweeps import runs, spec, sweep

    found = spec.read(arguments.file, arguments.overrides)
    if arguments.plan:
        sweep.show_plan(found)
    elif arguments.prepare:
        print(len(runs.lay_out(found)), found.folder)
    elif arguments.collect:
        sweep.collect(found)
    else:
        share = sweep.Share.parse(arguments.share) if arguments.share else None
        sweep.execute(found, cached=not arguments.no_cache, share=share, ray=arguments.ray)


def _compare(arguments: argparse.Namespace) -> None:
    from rlhf.sweeps import sweep

    sweep.compare_runs(arguments.runs, out=arguments.out)


def _profile(arguments: argparse.Namespace) -> None:
    from rlhf.sweeps import profile_command

    profile_command.run(**{name: value for name, value in vars(arguments).items() if name != "verb"})


def _merge(arguments: argparse.Namespace) -> None:
    from rlhf.loops import merge

    merge.show(merge.read(arguments.file, arguments.overrides))


def _clean(arguments: argparse.Namespace) -> None:
    from rlhf.loops import clean

    clean.show(clean.read(arguments.file, arguments.overrides))


def _doctor(arguments: argparse.Namespace) -> int:
    from rlhf.doctor import visit

    return visit.run(arguments.config, arguments.overrides)


def _tasks(arguments: argparse.Namespace) -> None:
    from rlhf.loops import catalogue

    catalogue.show_tasks()


def _components(arguments: argparse.Namespace) -> None:
    from rlhf.loops import catalogue

    catalogue.show_components()


if __name__ == "__main__":
    sys.exit(main())
