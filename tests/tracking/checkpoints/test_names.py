"""Names as they are published, looked up: what each says, and how a series of them becomes one run or several."""

import pytest

from tracking.checkpoints.names import Checkpoint, in_one_path, known_series, parse_tokens, read_name, variants_of

# (name, step, tokens, stage, variant, unit); each stands on the hub in a repository of the series named.
PUBLISHED = {
    "Pythia": [("step512", 512, None, None, None, "steps"), ("step143000", 143000, None, None, None, "steps")],
    "OLMo 1": [("step1000-tokens4B", 1000, 4e9, None, None, "steps")],
    "OLMo 2": [
        ("stage1-step150-tokens1B", 150, 1e9, "stage1", None, "steps"),
        ("stage1-step928646-tokens3896B", 928646, 3896e9, "stage1", None, "steps"),
        ("stage1-step1907359-tokens4001B", 1907359, 4001e9, "stage1", None, "steps"),
        ("stage2-ingredient1-step11931-tokens50B", 11931, 50e9, "stage2", "ingredient1", "steps"),
        ("stage2-ingredient3-step8000-tokens34B", 8000, 34e9, "stage2", "ingredient3", "steps"),
    ],
    "OLMoE": [
        ("step5000-tokens20B", 5000, 20e9, None, None, "steps"),
        ("step1200000-tokens5033B", 1200000, 5033e9, None, None, "steps"),
    ],
    "SmolLM3": [
        ("stage1-step-40000", 40000, None, "stage1", None, "steps"),
        ("stage2-step-4200000", 4200000, None, "stage2", None, "steps"),
        ("lc-4k-to-32k-step-4000", 4000, None, "lc-4k-to-32k", None, "steps"),
        ("lc-32k-to-64k-step-20000", 20000, None, "lc-32k-to-64k", None, "steps"),
        ("it-LC-expert", None, None, None, None, "steps"),
        ("it-SFT", None, None, "SFT", None, "steps"),
    ],
    "DataDecide": [
        ("step1250-seed-default", 1250, None, None, "seed-default", "steps"),
        ("step5000-seed-small-aux-2", 5000, None, None, "seed-small-aux-2", "steps"),
    ],
    "Amber": [("ckpt_356", 356, None, None, None, "steps")],
    "BLOOM": [("global_step1000", 1000, None, None, None, "steps")],
    "BabyLM": [("chck_1M", 10**6, None, None, None, "words"), ("chck_100M", 10**8, None, None, None, "words")],
    "others": [
        ("step-20k", 20000, None, None, None, "steps"),
        ("step-001000-2BT", 1000, 2e9, None, None, "steps"),
        ("20B-tokens", 20 * 10**9, 20e9, None, None, "tokens"),
        ("seed14-step-25000", 25000, None, None, "seed14", "steps"),
        ("epoch=3-step=900.ckpt", 900, None, None, None, "steps"),
        ("global_step20", 20, None, None, None, "steps"),
        ("pytorch_model-00001-of-00002.bin", None, None, None, None, "steps"),
        ("main", None, None, None, None, "steps"),
    ],
}


@pytest.mark.parametrize(
    ("name", "step", "tokens", "stage", "variant", "unit"), [row for rows in PUBLISHED.values() for row in rows]
)
def test_a_published_name(name: str, step, tokens, stage, variant, unit: str) -> None:
    found = read_name(name)
    assert (found.step, found.tokens, found.stage, found.variant, found.unit) == (step, tokens, stage, variant, unit)
    assert parse_tokens(name) == tokens


@pytest.mark.parametrize(
    ("repository", "series", "tokens_per_step", "unit"),
    [
        ("EleutherAI/pythia-160m", "Pythia", 2_097_152, "steps"),
        ("EleutherAI/pythia-1.4b-deduped", "Pythia", 2_097_152, "steps"),
        ("EleutherAI/pythia-410m-seed3", "PolyPythias", 2_097_152, "steps"),
        ("allenai/OLMo-7B", "OLMo 1", None, "steps"),
        ("allenai/OLMo-1B-0724-hf", "OLMo 1", None, "steps"),
        ("allenai/OLMo-2-0425-1B", "OLMo 2", None, "steps"),
        ("allenai/OLMoE-1B-7B-0924", "OLMoE", None, "steps"),
        ("allenai/DataDecide-dolma1_7-150M", "DataDecide", None, "steps"),
        ("HuggingFaceTB/SmolLM3-3B-checkpoints", "SmolLM3", 2_359_296, "steps"),
        ("LLM360/Amber", "Amber", None, "checkpoints"),
        ("bigscience/bloom-1b1-intermediate", "BLOOM", None, "steps"),
        ("BabyLM-community/babylm-baseline-100m-gpt2", "BabyLM", None, "words"),
    ],
)
def test_a_known_series(repository: str, series: str, tokens_per_step: float | None, unit: str) -> None:
    found = known_series(repository)
    assert found is not None
    assert (found.name, found.tokens_per_step, found.unit) == (series, tokens_per_step, unit)


def test_what_an_id_says_is_a_hyperparameter() -> None:
    found = known_series("allenai/DataDecide-dclm-baseline-150M")
    assert found is not None
    assert found.hyperparameters == {"data": "dclm-baseline", "size": "150M"}
    assert known_series("somebody/model") is None


def named(*names: str) -> list[Checkpoint]:
    found = [(name, read_name(name)) for name in names]
    return [Checkpoint(f.step or 0, "hub", f.tokens, name, f.stage, None, f.variant) for name, f in found]


def test_a_stage_that_counts_anew_goes_on_where_the_one_before_ended() -> None:
    olmo = named("stage2-ingredient1-step1000-tokens5B", "stage1-step150-tokens1B", "step1-tokens0B",
                 "stage1-step928646-tokens3896B", "stage2-ingredient1-step11931-tokens50B")  # fmt: skip
    path, stages = in_one_path(olmo)
    assert [c.step for c in path] == [1, 150, 928646, 929646, 940577]
    assert [c.tokens for c in path] == [0, 1e9, 3896e9, 3901e9, 3946e9]
    assert [(s.name, s.first_step, s.last_step, s.begins) for s in stages] == [
        ("stage1", 1, 928646, 0),
        ("stage2", 929646, 940577, 928646),
    ]
    assert [c.stage_step for c in path] == [1, 150, 928646, 1000, 11931]


def test_a_stage_that_counts_through_stays() -> None:
    smol = named("lc-32k-to-64k-step-4000", "stage1-step-3440000", "stage2-step-4200000", "stage1-step-40000",
                 "stage3-step-4720000", "lc-4k-to-32k-step-4000", "lc-4k-to-32k-step-20000")  # fmt: skip
    path, stages = in_one_path(smol, tokens_per_step=2_359_296.0)
    assert [s.name for s in stages] == ["stage1", "stage2", "stage3", "lc-4k-to-32k", "lc-32k-to-64k"]
    assert [c.step for c in path] == [40000, 3440000, 4200000, 4720000, 4724000, 4740000, 4744000]
    assert [c.tokens for c in path] == [c.step * 2_359_296 for c in path]


def test_one_stage_alone_changes_nothing() -> None:
    path, stages = in_one_path(named("step1000", "step2000"), tokens_per_step=10)
    assert ([c.step for c in path], [c.tokens for c in path], stages) == ([1000, 2000], [10000, 20000], ())


def test_variants_are_in_the_order_of_their_numbers() -> None:
    assert variants_of(named("step1-seed10", "step1-seed9", "step1", "step2-seed9")) == ("seed9", "seed10")
