"""Verb about causes: why, which training data moved a formation."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tracking.cli.terminal import Json, print_json, print_line, print_sentences, progress_bars, reporter

__all__ = ["why"]


def why(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Runs of `formation train`, or any with --data; several are seeds."),
    ],
    role: Annotated[
        str, typer.Option(help="Whose date: a role, a1.h0:induction, task/NAME, loss or loss/SOURCE.")
    ] = "induction",
    threshold: Annotated[float | None, typer.Option(help="Its bar; the role's own if not given.")] = None,
    by: Annotated[str, typer.Option(help="source | window | example.")] = "source",
    windows: Annotated[int, typer.Option(min=1, help="Parts, with --by window.")] = 4,
    method: Annotated[str, typer.Option(help="unrolled (through training) | products (of gradients).")] = "unrolled",
    restrict: Annotated[bool, typer.Option("--restrict", help="With products: the head's own weights only.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="JSON lines (step, source, tokens) of what a run of another trainer saw.")
    ] = None,
    verify: Annotated[int, typer.Option(min=0, help="Branches to retrain, to prove the largest shifts.")] = 0,
    n_prompts: Annotated[int, typer.Option("--n-prompts", min=2, help="Prompts on which the curve is measured.")] = 64,
    as_json: Json = False,
) -> None:
    """Say which training data moved a formation, by how many steps, and prove it by retraining.

    Example: `formation why runs/mixed --role loss/repeats --verify 1`
    """
    from tracking.influence.influence import why as why_of

    options: dict[str, Any] = {"threshold": threshold, "by": by, "windows": windows, "method": method}
    options |= {"restrict": restrict, "verify": verify, "n_prompts": n_prompts, "data": data}
    with progress_bars() as progress:
        found = why_of(runs, role=role, progress=reporter(progress), **options)
    if as_json:
        return print_json(found.to_dict())
    print_sentences(found.sentences)
    for each in found.top:
        tokens = " ".join(map(str, each.tokens))
        print_line(f"  step {each.step}, {each.source}: {each.shift_steps:+.4f} steps: {tokens}")
