"""Ask a model the zero-shot tasks' questions and compare every outcome with lm-evaluation-harness's.

    python tools/checks/zero_shot.py target/release/sparsellm MODEL DATA [LIMIT=200] [TASK ...]

MODEL is a Hugging Face folder, DATA a folder of the files that TASKS names. Our command reads them itself; lm_eval
is given the first LIMIT documents in the hub's schema, and its own task files with nothing but the documents' place
changed (float32, on the CPU, no examples). The local HellaSwag has lost the boundary of ctx_a and ctx_b: all of it is
ctx_a, for both.

A tie is an answer that differs where lm_eval's best two are nearer than 1e-3 nats (per character for acc_norm).
LAMBADA's answers have no ties. The exit status is 1 if another answer differs, if a log-likelihood differs by more
than 5e-3, or if a task's scores are not those of its items.
"""

import argparse
import bz2
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # read by the imports below

import numpy
import pyarrow.parquet
import transformers
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

TIE, TOLERANCE = 1e-3, 5e-3
QUESTION = "Please choose the correct answer to the question: "
BLANK = "Please choose the correct answer to fill in the blank to complete the given sentence: "


def json_lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def cut(text: str, mark: str) -> list:
    """The text before and after the only occurrence of a mark."""
    parts = text.split(mark)
    if len(parts) != 2:
        raise ValueError(f"{len(parts) - 1} times {mark!r} in {text!r}")
    return parts


def hellaswag(path: Path):
    """Six lines a row: `activity_label: ctx`, the right ending's number, four endings."""
    rows = bz2.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")
    for context, label, *endings in zip(*[iter(rows)] * 6, strict=True):
        activity, context = context.split(": ", 1)
        yield dict(activity_label=activity, ctx_a=context, ctx_b="", endings=endings, label=label)


def piqa(path: Path, labels: Path):
    for row, label in zip(json_lines(path), labels.read_text().split(), strict=True):
        yield dict(goal=row["goal"], sol1=row["sol1"], sol2=row["sol2"], label=int(label))


def winogrande(path: Path):
    for row in json.loads(path.read_text(encoding="utf-8")):
        body, _ = cut(cut(row["instruction"], BLANK)[1], " Answer format: ")
        sentence, options = cut(body, "\n\nOption1: ")
        one, two = cut(options, " Option2: ")
        yield dict(sentence=sentence, option1=one, option2=two, answer=row["answer"].removeprefix("option"))


def numbered_answers(path: Path):
    """ARC and OpenBookQA, as instructions; the question under both names."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        body, form = cut(cut(row["instruction"], QUESTION)[1], "\n\nAnswer format: ")
        question, options = cut(body, "\n\nAnswer1: ")
        choices = dict(text=re.split(" Answer[2-5]: ", options), label=form.split("/"))
        yield dict(question=question, question_stem=question, choices=choices, answerKey=row["answer"])


def boolq(path: Path):
    for row in json_lines(path):
        passage, _ = cut(row["prompt"].removeprefix("passage: "), "\nquestion: {}")
        yield dict(passage=passage, question=row["subject"], label=["False", "True"].index(row["target_new"]["str"]))


TASKS = {  # how the documents are read, and from which files
    "lambada_openai": (json_lines, "lambada_test.jsonl"),
    "hellaswag": (hellaswag, "hellaswag_val_full.txt.bz2"),
    "piqa": (piqa, "piqa_dev.jsonl", "piqa_dev-labels.lst"),
    "winogrande": (winogrande, "winogrande_test.json"),
    "arc_easy": (numbered_answers, "arc-easy_test.json"),
    "arc_challenge": (numbered_answers, "arc-challenge_test.json"),
    "boolq": (boolq, "boolq_validation.jsonl"),
    "rte": (lambda path: pyarrow.parquet.read_table(path).to_pylist(), "rte_validation.parquet"),
    "openbookqa": (numbered_answers, "openbookqa_test.json"),
}
ROW = "{:15} {:>9}   {:15} {:15} {:>10} {:>10} {:>5}"


def ours(args, name: str, work: Path) -> tuple:
    """The task's scores and its items by the command."""
    out = subprocess.check_output([args.binary.resolve(), "eval", args.model, "--tasks", name, "--task-data", args.data,
                                   "--limit", str(args.limit), "--items", work / "items", "--json"])
    return json.loads(out)["tasks"][0], json_lines(work / "items")


def theirs(args, name: str, work: Path, lm: HFLM, manager: TaskManager) -> tuple:
    """The task's scores and its items by lm_eval."""
    reader, *files = TASKS[name]
    documents, task = work / "documents.jsonl", work / f"{name}.yaml"
    rows = itertools.islice(reader(*(args.data / file for file in files)), args.limit)
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = dict.fromkeys(("train", "validation", "test"), str(documents))
    task.write_text(json.dumps({  # JSON is YAML
        "include": str(manager.task_index[name].yaml_path), "task": name, "dataset_path": "json", "dataset_name": None,
        "dataset_kwargs": {"data_files": places, "cache_dir": str(work / "cache")}}))
    result = simple_evaluate(lm, tasks=[str(task)], task_manager=manager, bootstrap_iters=0)
    return result["results"][name], sorted(result["samples"][name], key=lambda s: s["doc_id"])


def margin(metric: str, sample: dict) -> float:
    """By how much lm_eval's best choice beats its second."""
    scores = numpy.array([log_likelihood for log_likelihood, _ in sample["filtered_resps"]])
    if metric == "acc_norm":
        scores /= [len(continuation) - 1 for _, continuation in sample["arguments"]]  # without the space before it
    return numpy.diff(numpy.sort(scores))[-1] if len(scores) > 1 else math.inf


def compare(name: str, scores: dict, items: list, expected: dict, samples: list) -> list:
    """Print the task's row; returns what is wrong."""
    metrics = [m for m in ("acc", "acc_norm") if f"{m},none" in expected]
    wrong, worst, margins = [], 0.0, []  # margins of the answers that differ
    for i, (item, sample) in enumerate(zip(items, samples, strict=True)):
        one, two = item["log_likelihoods"], [log_likelihood for log_likelihood, _ in sample["filtered_resps"]]
        difference = numpy.abs(numpy.subtract(one, two)).max() if len(one) == len(two) else math.inf
        worst = numpy.maximum(worst, difference)
        if not difference <= TOLERANCE:  # so that NaN is wrong
            wrong.append(f"item {i}: log-likelihoods {one}, by lm_eval {two}")
        for metric in (m for m in metrics if item.get(m) != bool(sample[m])):
            margins.append(margin(metric, sample))
            if not margins[-1] < TIE:
                wrong.append(f"item {i}: {metric} {item.get(metric)}, by lm_eval {bool(sample[metric])}")
    for metric in metrics:
        if not math.isclose(scores[metric], of_items := numpy.mean([bool(item.get(metric)) for item in items])):
            wrong.append(f"{metric} {scores[metric]}, of the items {of_items}")
    both = [f"{scores[m]:.4f} {expected[f'{m},none']:.4f}" for m in metrics] + [""]
    ties = sum(m < TIE for m in margins)
    print(ROW.format(name, len(items), *both[:2], f"{worst:.1e}", len(margins), ties), flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="the sparsellm command")
    parser.add_argument("model", type=Path, help="a Hugging Face folder")
    parser.add_argument("data", type=Path, help="folder of the tasks' files")
    parser.add_argument("limit", type=int, nargs="?", default=200, help="questions of each task (default 200)")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)} (default all)")
    args = parser.parse_args()
    if unknown := sorted(set(args.tasks) - set(TASKS)):
        parser.error(f"unknown task {', '.join(unknown)}")
    transformers.logging.set_verbosity_error()
    lm, manager, wrong = HFLM(pretrained=str(args.model), dtype="float32", device="cpu"), TaskManager(), 0
    print(ROW.format("task", "documents", "acc (both)", "acc_norm", "difference", "differing", "ties"), flush=True)
    for name in args.tasks or TASKS:
        with tempfile.TemporaryDirectory() as work:
            by_us, by_them = ours(args, name, Path(work)), theirs(args, name, Path(work), lm, manager)
        for what in compare(name, *by_us, *by_them):
            wrong += 1
            print(f"  {name}: {what}")
    print(f"{wrong} things wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
