"""Every pair differs as little as can be, asks for one answer, and its control asks for none."""

import pytest
import torch

from circuits.tasks.induction import induction_task
from circuits.tasks.registry import TASKS, make_task
from circuits.tasks.task import Task, task_values
from tests.models import random_task, save_induction_model, tiny_model

MODEL = "native"


def test_the_induction_answer_follows_the_last_tokens_earlier_occurrence() -> None:
    task = induction_task(tiny_model(MODEL), n_prompts=12, seed=3)
    assert len(set(task.lengths.tolist())) > 2  # several periods, several lengths
    for clean, corrupted, length, right, wrong in zip(
        task.clean.tolist(), task.corrupted.tolist(), task.lengths.tolist(), task.correct.tolist(),
        task.incorrect.tolist(), strict=True,
    ):  # fmt: skip
        last = clean[length - 1]
        assert clean[clean.index(last) + 1] == right[0] != wrong[0] == corrupted[corrupted.index(last) + 1]
        assert sorted(clean) == sorted(corrupted)
        assert corrupted[length - 1] == last


def test_the_control_repeats_nothing_that_tells_the_answer() -> None:
    control = induction_task(tiny_model(MODEL), n_prompts=40).control()
    told = 0
    for row, length, right in zip(
        control.clean.tolist(), control.lengths.tolist(), control.correct.tolist(), strict=True
    ):
        followers = [row[i + 1] for i in range(length - 2) if row[i] == row[length - 1]]
        told += right[0] in followers
    assert told <= 3  # by chance


def test_the_hand_set_model_does_the_task_and_not_its_control(tmp_path) -> None:
    from circuits.model import load_model

    model = load_model(save_induction_model(tmp_path))
    task = induction_task(model, n_prompts=32)
    clean, corrupted, control = (
        task_values(model, task).mean(),
        task_values(model, task, corrupted=True).mean(),
        task_values(model, task.control()).mean(),
    )
    assert clean > 4
    assert corrupted < -4
    assert abs(control) < 1


def test_tasks_depend_on_the_seed_alone() -> None:
    model = tiny_model(MODEL)
    for name in TASKS:
        first, again, other = (make_task(name, model, n_prompts=6, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first.clean, again.clean)
        assert not torch.equal(first.clean, other.clean)


def test_left_padding_is_right_padding() -> None:
    rows = [[5, 6, 7], [8, 9]]
    listed = Task.from_tokens(rows, rows, [1, 2], [3, 4])
    left = torch.tensor([[5, 6, 7], [0, 8, 9]])
    padded = Task.from_tokens(left, left, [1, 2], [3, 4], lengths=[3, 2], padding="left")
    assert torch.equal(listed.clean, padded.clean)
    assert listed.positions.tolist() == padded.positions.tolist() == [2, 1]


def test_padding_changes_no_value() -> None:
    model = tiny_model(MODEL)
    task = random_task(model, n_prompts=3)
    alone = [task_values(model, task.rows(slice(i, i + 1))) for i in range(3)]
    short = []
    for row, length in enumerate(task.lengths.tolist()):
        clean, corrupted = task.clean[row : row + 1, :length], task.corrupted[row : row + 1, :length]
        short.append(Task.from_tokens(clean, corrupted, task.correct[row : row + 1], task.incorrect[row : row + 1]))
    torch.testing.assert_close(task_values(model, task), torch.cat(alone))
    torch.testing.assert_close(task_values(model, task), torch.cat([task_values(model, one) for one in short]))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: Task.from_tokens([[1, 2]], [[1, 2, 3]], [1], [2]),
            "in pair 0 the clean one has 2 and the corrupted one 3",
        ),
        (lambda: Task.from_tokens([[1, 2]], [[1, 2], [3, 4]], [1], [2]), "as many corrupted prompts as clean ones"),
        (lambda: Task.from_tokens([], [], [], []), "at least one prompt"),
        (lambda: Task.from_tokens([[1, 2]], [[1, 3]], [1], [2], positions=[2]), "positions within the prompts"),
        (lambda: Task.from_tokens([[1, 2]], [[1, 3]], [1, 2], [2]), "expected correct answers for 1 prompts"),
        (lambda: Task.from_tokens([[1, 2]], [[1, 3]], [1], [2], metric="nonsense"), "expected a metric among"),
        (lambda: induction_task(tiny_model(MODEL), periods=[9]), "periods from 3 to 8, half the model's context"),
        (lambda: induction_task(tiny_model(MODEL), n_prompts=0), "at least one prompt"),
        (lambda: make_task("inducton", tiny_model(MODEL)), "the nearest is 'induction'"),
        (lambda: random_task(tiny_model(MODEL)).control(), "has no control"),
    ],
)
def test_bad_requests_get_a_sentence(build, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


def test_a_metric_of_ones_own_must_give_one_value_a_prompt() -> None:
    model = tiny_model(MODEL)
    good = random_task(model, metric=lambda logits, answers: logits[:, 0])
    assert task_values(model, good).shape == (3,)
    bad = random_task(model, metric=lambda logits, answers: logits.mean())
    with pytest.raises(ValueError, match="one value a prompt, 3 of them"):
        task_values(model, bad)
