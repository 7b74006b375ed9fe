"""Every pair differs as little as can be, asks for one answer, and its control asks for none."""

from pathlib import Path

import pytest
import torch

from circuits.tasks import ioi
from circuits.tasks.induction import induction_task
from circuits.tasks.registry import TASKS, make_task
from circuits.tasks.task import Task, task_values
from circuits.tasks.text import single_tokens
from tests.models import random_task, save_induction_model, tiny_model, word_model

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
    from circuits.loading import load_model

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


TEXT = "the cat sat on the mat and the dog sat on the log " * 4
OPTIONS: dict[str, dict] = {
    "ngram": {"text": TEXT, "n_tokens": 8},
    "memorization": {"strings": [TEXT[:60], "a b c d e f"]},
}
GENERATED = [name for name in TASKS if name != "table"]


@pytest.mark.parametrize("name", GENERATED)
def test_every_task_is_whole(name: str) -> None:
    model, options = word_model(), OPTIONS.get(name, {})
    task = make_task(name, model, n_prompts=8, **options)
    assert len(task) == 8
    task.check(model)
    differs = task.clean != task.corrupted
    assert differs.any(1).all()
    assert not (differs & (torch.arange(task.clean.shape[1]) > task.positions[:, None])).any()  # padding is alike
    assert (task.positions == task.lengths - 1).all()
    for right, wrong in zip(task.correct.tolist(), task.incorrect.tolist(), strict=True):
        assert not (set(right) & set(wrong)) - {-1}
        assert max(right) >= 0
    assert torch.isfinite(task_values(model, task)).all()
    control = task.control()
    assert control.name == f"{task.name}_control"
    assert len(control) == 8
    assert not torch.equal(control.clean, task.clean) or name in ("ngram", "modular_addition")
    assert torch.isfinite(task_values(model, control)).all()


@pytest.mark.parametrize("name", GENERATED)
def test_tasks_depend_on_the_seed_alone(name: str) -> None:
    model, options = word_model(), OPTIONS.get(name, {})
    first, again, other = (make_task(name, model, n_prompts=6, seed=seed, **options) for seed in (0, 0, 1))
    assert torch.equal(first.clean, again.clean)
    assert torch.equal(first.corrupted, again.corrupted)
    assert not torch.equal(first.corrupted, other.corrupted)


def words(task: Task, row: int) -> tuple[list[str], list[str]]:
    tokenizer, length = word_model().tokenizer, int(task.lengths[row])
    return tuple(tokenizer.convert_ids_to_tokens(rows[row, :length].tolist()) for rows in (task.clean, task.corrupted))  # type: ignore[return-value]


def test_ioi_asks_for_the_one_who_is_not_repeated() -> None:
    model = word_model()
    task = make_task("ioi", model, n_prompts=12)
    for row in range(12):
        clean, corrupted = words(task, row)
        right, wrong = model.tokenizer.convert_ids_to_tokens([int(task.correct[row, 0]), int(task.incorrect[row, 0])])
        assert (clean.count(right), clean.count(wrong)) == (1, 2)
        assert (corrupted.count(right), corrupted.count(wrong)) == (1, 1)
    abba, baba = (make_task("ioi", model, n_prompts=6, order=order) for order in ("ABBA", "BABA"))
    for row in range(6):
        for task, first in ((abba, task_answer(abba, row, "correct")), (baba, task_answer(baba, row, "incorrect"))):
            names = [word for word in words(task, row)[0] if word in (first, task_answer(task, row, "correct"))]
            assert names[0] == first
    control = words(make_task("ioi", model, n_prompts=1).control(), 0)[0]
    assert control.count(task_answer(make_task("ioi", model, n_prompts=1), 0, "incorrect")) == 1


def task_answer(task: Task, row: int, which: str) -> str:
    return word_model().tokenizer.convert_ids_to_tokens([int(getattr(task, which)[row, 0])])[0]


def test_greater_than_counts_every_later_year() -> None:
    model = word_model()
    task = make_task("greater_than", model, n_prompts=6)
    for row in range(6):
        clean, corrupted = words(task, row)
        start = clean[clean.index("year") + 2]
        assert corrupted[clean.index("year") + 2] == "01"
        later = model.tokenizer.convert_ids_to_tokens([token for token in task.correct[row].tolist() if token >= 0])
        assert later == [f"{n:02}" for n in range(int(start) + 1, 100)]


def test_modular_sums_are_right() -> None:
    task = make_task("modular_addition", tiny_model(MODEL), n_prompts=20)
    assert (task.correct[:, 0] == (task.clean[:, 0] + task.clean[:, 1]) % 39).all()
    assert (task.incorrect[:, 0] == (task.corrupted[:, 0] + task.corrupted[:, 1]) % 39).all()
    assert (task.clean[:, 2] == 39).all()


def test_memorized_tokens_are_asked_one_by_one() -> None:
    strings = [[1, 2, 3, 4, 5, 6], [9, 8, 7, 6]]
    task = make_task("memorization", tiny_model(MODEL), n_prompts=5, strings=strings)
    asked = [(row[:length], right) for row, length, (right,) in zip(
        task.clean.tolist(), task.lengths.tolist(), task.correct.tolist(), strict=True)]  # fmt: skip
    assert asked == [([1, 2, 3], 4), ([1, 2, 3, 4], 5), ([1, 2, 3, 4, 5], 6), ([9, 8], 7), ([9, 8, 7], 6)]


@pytest.mark.parametrize("order", [1, 2])
def test_ngram_divergence_is_that_of_the_text(order: int) -> None:
    model = tiny_model(MODEL)
    text = torch.randint(5, (300,), generator=torch.Generator().manual_seed(0))
    task = make_task("ngram", model, n_prompts=4, text=text, order=order, n_tokens=6)
    assert task.reference is not None
    probability = task.reference.exp()
    torch.testing.assert_close(probability.sum(1), torch.ones(4, dtype=probability.dtype))
    for row in range(4):
        last = int(task.clean[row, -1])
        following = text if order == 1 else text[1:][text[:-1] == last]
        expected = 0.99 * float((following == 3).double().mean()) + 0.01 / model.d_vocab
        assert float(probability[row, 3]) == pytest.approx(expected)
    logits = model.logits(task.clean)[:, -1].log_softmax(-1)
    divergence = (probability * (task.reference - logits)).sum(1)
    torch.testing.assert_close(task_values(model, task), -divergence)


def test_tables_of_ones_own(tmp_path: Path) -> None:
    model = word_model()
    cat, dog = (single_tokens(model.tokenizer, [word])[0][word] for word in ("car", "door"))
    (tmp_path / "pairs.csv").write_text(
        "clean,corrupted,correct_idx,incorrect_idx\n"
        f'The key to the,The song to the,{cat},"[{dog}, {cat}]"\n'
        f"The key,The song,{dog},{cat}\n"
    )
    task = make_task("table", model, path=tmp_path / "pairs.csv", n_prompts=10)
    assert task.correct.tolist() == [[cat], [dog]]
    assert task.incorrect.tolist() == [[dog, cat], [cat, -1]]
    assert task.positions.tolist() == [3, 1]
    (tmp_path / "pairs.jsonl").write_text('{"clean": "The key", "corrupted": "The song", "correct": "car"}\n')
    assert make_task("table", model, path=tmp_path / "pairs.jsonl").correct.tolist() == [[cat]]
    (tmp_path / "bad.csv").write_text("clean,corrupted,correct\nThe key,The key song,car\n")
    with pytest.raises(ValueError, match="the clean one has 2 and the corrupted one 3"):
        make_task("table", model, path=tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("clean,correct\nThe key,car\n")
    with pytest.raises(ValueError, match="row 1 has no corrupted"):
        make_task("table", model, path=tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("clean,corrupted,correct\nThe key,The song,zzyzx\n")
    with pytest.raises(ValueError, match="answers that are single tokens"):
        make_task("table", model, path=tmp_path / "bad.csv")
    with pytest.raises(FileNotFoundError, match="no such file"):
        make_task("table", model, path=tmp_path / "none.csv")


def test_words_that_are_no_tokens_are_dropped_and_counted() -> None:
    task = make_task("ioi", word_model(without=("Mary", "John", "Leo")), n_prompts=3)
    assert task.dropped == make_task("ioi", word_model(), n_prompts=3).dropped + 3
    with pytest.raises(ValueError, match="needs 4 of its 36 words as single tokens"):
        make_task("ioi", word_model(without=tuple(ioi.NAMES[2:])))
    with pytest.raises(ValueError, match="expected a tokenizer beside the weights"):
        make_task("ioi", tiny_model(MODEL))


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
        (lambda: make_task("inducton", tiny_model(MODEL)), "did you mean induction"),
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
