"""The published run kept true to the library: recomputed where a CPU suffices, else named."""

from __future__ import annotations

from pathlib import Path

from lib.paper import chapters, compare, publish, runner, settings, stale

PAPER = "paper"  # the file of the published run's parameters
NO_TRAINING = {"time_budget_s": 0.0}  # the finished runs are published; none is trained here


def published(run: Path) -> tuple[list[str], bool]:
    """Recompute, in a run of its own, the published chapters that are stale and need no GPU, at
    the paper's parameters, and confirm those whose values are all reproduced.

    Returns a line for each chapter, with the command for those that are left, and whether none is.
    """
    records = compare.records(chapters.PUBLISHED).values()
    stand = {record["chapter"]: stale.since(chapters.PUBLISHED, record) for record in records}
    due = [chapter for chapter in chapters.names() if stand.get(chapter, ["unpublished"])]
    here = [chapter for chapter in due if not chapters.on_gpu(chapter)]
    away = [chapter for chapter in due if chapters.on_gpu(chapter)]
    given = settings.load(PAPER) | NO_TRAINING
    if here:
        with runner.sole(run) as held:
            runner.execute(run, given, here, origin=PAPER, held=held, published=True)
    lines = [f"{chapter}: up to date" for chapter in chapters.names() if chapter not in due]
    verdicts = {chapter: _verdict(run, chapter) for chapter in here}
    lines += [f"{chapter}: {words}" for chapter, (words, _) in verdicts.items()]
    if away:
        command = f"CHAPTERS='{' '.join(away)}' notebooks/gpu.sh execute OUT"
        lines += [f"{' and '.join(away)}: at the paper's parameters on a GPU:", f"  {command}"]
        lines += ["  then OUT as a folder of _build/runs, and python -m lib confirm (or publish)"]
    return lines, not away and all(fine for _, fine in verdicts.values())


def _verdict(run: Path, chapter: str) -> tuple[str, bool]:
    """What came of recomputing a chapter, in words, and whether it is confirmed."""
    if reason := runner.failure(run, chapter):
        return f"failed: {reason}", False
    record = compare.record(run, chapter)
    if record is None:
        return "not run", False
    if left := record.get("left"):
        command = f"notebooks/gpu.sh finetune OUT, then CHAPTERS={chapter} notebooks/gpu.sh execute"
        return f"{left}; on a GPU: {command}", False
    bad = publish.confirm(record)
    if bad.empty:
        return "recomputed, every value unchanged: confirmed", True
    names = ", ".join(bad.get("value", bad.verdict))
    see = f"`python -m lib compare reference {run.name}`"
    accept = f"`python -m lib publish {run.name} --only {chapter[:2]}`"
    return f"recomputed, differs in {names}; see {see}; to accept it {accept}", False
