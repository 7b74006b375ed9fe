"""What was run is told as commands that can be run, and with what is needed to know it was the same."""

from dataclasses import replace

from tests.timeline_examples import demo_timeline
from tracking.viewer.made_with import made_with


def test_a_recording_is_told_with_its_options_versions_and_hashes() -> None:
    run = demo_timeline().runs[0]
    settings = {"tasks": ["induction", "ioi"], "method": "eap-ig", "n_prompts": 64, "seed": 0, "target": 0.85}
    settings |= {"versions": {"torch": "2.0"}}
    key = next(iter(run.history.records))
    records = dict(run.history.records)
    records[key] = replace(records[key], provenance={"checkpoint": "step0", "hash": "abc"})
    text = made_with(replace(run, history=replace(run.history, settings=settings, records=records)))
    lines = text.splitlines()
    assert lines[0] == (
        "formation record SOURCE --task induction,ioi --out demo --method eap-ig --n-prompts 64 --seed 0 --target 0.85"
    )
    assert lines[1].startswith("formation report demo --out report.html")
    assert "# torch 2.0" in lines
    assert f'# step {key[0]}: {{"checkpoint": "step0", "hash": "abc"}}' in lines
    assert all(line.startswith(("formation ", "# ")) for line in lines)


def test_the_command_that_was_typed_is_told_as_it_was_typed() -> None:
    run = demo_timeline().runs[0]
    made = [{"command": "formation record runs/a --task induction --out h", "source": "runs/a", "commit": "abc123"}]
    settings = {"tasks": ["induction"], "made": made}
    lines = made_with(replace(run, history=replace(run.history, settings=settings))).splitlines()
    assert lines[0] == made[0]["command"]
    assert "# commit abc123" in lines
    unknown = {"tasks": ["induction"], "made": [{"source": "runs/a b"}]}
    text = made_with(replace(run, history=replace(run.history, settings=unknown)))
    assert text.startswith("formation record 'runs/a b' --task induction --out demo")
