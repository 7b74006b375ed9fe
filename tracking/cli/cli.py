"""Command line: what can be asked for, one verb each.

Each verb is one call of the Python interface.  Results go to stdout (`--json` for machines), progress and warnings to
stderr.  Exit codes: 0 done, 1 the work failed, 2 the request was wrong, 3 done in part.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from tracking.cli.checkpoints import audit, record
from tracking.cli.circuits import circuit
from tracking.cli.importing import import_, join
from tracking.cli.influence import why
from tracking.cli.many_runs import compare, design, forecast, sweep
from tracking.cli.outputs import export, match, report, track
from tracking.cli.terminal import (
    COMMAND,
    Json,
    fail,
    finish_printing,
    for_people,
    in_the_way,
    make_printable,
    number,
    pairs,
    print_json,
    print_line,
    print_sentences,
    print_wrapped,
    progress_bars,
    reporter,
    sentence_of,
    stop_printing,
    text_width,
    trouble_with_disk,
)
from tracking.cli.watching import leads, watch
from tracking.execution.plugins import load_plugins

if TYPE_CHECKING:
    pass

__all__ = ["VERBS", "add_verb", "app", "main"]

# The base of every wrong option or argument; where it is defined differs between versions of typer.
_UsageError: Any = typer.BadParameter.__base__

INTERRUPTED = 130
STOPPED = "stopped; what was finished is on disk, and the same command goes on from there"

app: typer.Typer = typer.Typer(
    name="formation",
    help="Follow circuits through training: when each component forms, and what takes over from what.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; every failure is one sentence on stderr and an exit code."""
    make_printable()
    sys.exit(finish_printing(run(arguments)))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command."""
    try:
        load_plugins()
        given = list(arguments) if arguments is not None else None
        COMMAND.set(shlex.join(["formation", *(sys.argv[1:] if given is None else given)]))
        code = int(copy_context().run(app, args=given, standalone_mode=False) or 0)
        # Some versions of typer turn Ctrl-C into this code, others raise Abort.
        return code if code != INTERRUPTED else fail(STOPPED, 1)
    except typer.Exit as stop:
        return stop.exit_code
    except _UsageError as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return fail(STOPPED, 1)
    except FileNotFoundError as error:
        return fail(sentence_of(error), 2)
    except (ValueError, KeyError) as error:
        return fail(sentence_of(error), 2)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        return fail(f"{in_the_way(error)}; choose another place", 2)
    except ImportError as error:
        return fail(f"{error}; `formation doctor` says what is missing", 1)
    except (BrokenPipeError, SystemExit):  # whoever read the results has seen enough; typer ends the process then
        stop_printing()
        return 0
    except OSError as error:
        return fail(trouble_with_disk(error), 1)
    except (RuntimeError, MemoryError) as error:
        return fail(f"the work failed: {sentence_of(error) or type(error).__name__}", 1)


@app.callback()
def _before_any_verb(
    limit: Annotated[
        list[str] | None, typer.Option("--limit", help="NAME=NUMBER: allow more than usual; messages name what.")
    ] = None,
) -> None:
    if not limit:  # the doctor must run where another package hides ours
        return
    from circuits.limits import raise_limits

    raise_limits(**{name: number(value, "--limit") for name, value in pairs(limit, "--limit").items()})


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run, its history, the timeline and the page.")] = Path(
        "formation-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the model, the data and the prompts.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps and checkpoints: under half a minute.")] = False,
    as_json: Json = False,
) -> None:
    """Train a small transformer, watch an induction circuit form, and write the timeline and the page.

    Example: `formation demo --out demo`
    """
    from tracking.cli.demo import run_demo

    with progress_bars() as progress:
        result = run_demo(out, seed=seed, quick=quick, progress=reporter(progress))
    if as_json:
        return print_json({"files": [str(path) for path in result.files], "sentences": list(result.sentences)})
    if for_people():
        from tracking.cli.glance import print_run

        print_run(result.timeline.runs[0], everything=False)
    else:
        print_sentences(result.sentences)
    print_line()
    print_line("Written:")
    for path in result.files:
        print_line(f"  {path}")


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file of training options.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; an unfinished run there goes on.")],
    changes: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE in place of the file's.")] = None,
    as_json: Json = False,
) -> None:
    """Train a small transformer on synthetic data, with dense checkpoints and exact resume.

    Example: `formation train config.toml --out runs/a --set learning_rate=0.001`
    """
    from tracking.training.hyperparameters import TrainingConfig
    from tracking.training.training import train as train_run

    settings = TrainingConfig.from_toml(config, overrides=pairs(changes, "--set"))
    with progress_bars() as progress:
        run = train_run(settings, out, progress=reporter(progress))
    steps = [checkpoint.step for checkpoint in run.checkpoints]
    if as_json:
        return print_json({"run": str(out), "name": run.name, "steps": steps})
    print_line(f"{out}: {len(steps)} checkpoints, from step {steps[0]} to {steps[-1]}")


def branch(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, with checkpoints that keep states.")],
    at: Annotated[int, typer.Option(help="A step of which there is a checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder for the branch; an unfinished one there goes on.")],
    intervene: Annotated[
        list[str] | None, typer.Option(help="A sentence, such as 'ablate a0.h1 until 400'; may be given several times.")
    ] = None,
    until: Annotated[int | None, typer.Option(help="The last step; that of the run if not given.")] = None,
    checkpoints: Annotated[str | None, typer.Option(help="Steps to keep, such as 0..800:10.")] = None,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Begin with a new optimiser where the checkpoint keeps no state.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Go on from a checkpoint with one thing changed, beside a control in which nothing is.

    An intervention is one sentence, ending in any of: from STEP, until STEP (the first without), when CONDITION.

    - `ablate a0.h1,a1 mean`: no output (or, with mean, the mean of it); a1 is every head of layer 1, m0 an MLP
    - `clamp a0.h0 to previous-token` (induction, duplicate-token, or a checkpoint's head: RUN@STEP:a1.h0)
    - `freeze a1.h0`: its weights stay; `mask-gradient a1.h0`: they get no gradient
    - `graft a1.h0 with RUN@STEP at 300`: they become those of its match there, or of RUN@STEP:a1.h2
    - `reinitialise a1.h0 seed 3 at 300`: they are drawn anew
    - `set learning_rate=0.001` (weight_decay, clip_norm, batch_size), `set repeat_probability=0` (burstiness,
      zipf_exponent, corrupted_fraction, shortest_period, longest_period); several with spaces between
    - `reorder repeats-first` (repeats-last, shuffled, reversed): the same sequences in another order
    - `reweight SOURCE by 1.1`: the sequences of a source of data count more, or less

    A condition is a rule over the largest head score or a loss: `when induction<0.2 at 400`; without at, it is looked
    at every ten steps until it holds. Others: `mean:previous-token>0.5`, `a1.h0:induction>0.3`,
    `loss_second_half<2`.

    Example: `formation branch runs/a --at 300 --intervene "ablate a1.h2 until 400" --out runs/b`
    """
    from tracking.experiments.branching import branch as branch_run

    options = {"until": until, "checkpoints": checkpoints, "inexact": inexact}
    with progress_bars() as progress:
        made = branch_run(source, at=at, interventions=intervene or [], out=out, progress=reporter(progress), **options)
    if as_json:
        about = {"run": str(out), "control": made.control.source, "parent": made.parent.source, "at": at}
        about |= {"interventions": [each.spec for each in made.interventions], "exact": made.exact}
        about |= {"compared": made.compared, "different": made.different, "firings": made.firings}
        return print_json({**about, "sentences": made.sentences})
    print_sentences(made.sentences)


def doctor(as_json: Json = False) -> None:
    """Say what is installed, what clashes, which devices there are, and what to do.

    Example: `formation doctor`
    """
    from tracking.cli.doctor import diagnose

    findings = diagnose()
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        for finding in findings:
            advice = f"  ({finding.advice})" if finding.advice else ""
            print_wrapped(f"{finding.subject}: {finding.text}{advice}", text_width(), f"{finding.level:8}", " " * 8)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


class _VerbCommand(TyperCommand):
    """A verb whose help lists the formats there are where it says {formats}, read when it is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if "{formats}" in (self.help or ""):
            from tracking.results.exports import FORMATS

            listed = (f"- `{name}`: {each.about}" for name, each in FORMATS.items())
            self.help = (self.help or "").replace("{formats}", "\n".join(["Formats:", "", *listed]))
        super().format_help(ctx, formatter)


def add_verb(verb: Callable[..., None], *, panel: str = "Added") -> None:
    """Make a function a verb of that name; its arguments and its docstring are the verb's.

    Raises:
        ValueError: there is such a verb, or the docstring has no line with an example, `Example: ...`.
    """
    name = verb.__name__.rstrip("_")
    if name in VERBS:
        raise ValueError(f"there is a verb {name!r} already; give the function another name")
    if "Example: `" not in (verb.__doc__ or ""):
        raise ValueError(f"expected an example in the docstring of {name!r}: a line 'Example: `formation {name} ...`'")
    VERBS[name] = verb
    app.command(name, rich_help_panel=panel, cls=_VerbCommand)(verb)


VERBS: dict[str, Callable[..., None]] = {}
"""Every verb by its name, in the order in which a newcomer meets them; `add_verb` adds one."""
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Begin": (demo, doctor),
    "One run": (train, audit, circuit, record, import_, join, track, match),
    "Many runs": (sweep, compare, leads, forecast, watch, design, branch, why),
    "Results": (report, export),
}
for _panel, _verbs in _PANELS.items():
    for _verb in _verbs:
        add_verb(_verb, panel=_panel)
