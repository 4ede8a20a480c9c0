"""The table and the sentence of chapter 3, from records whose numbers can be counted by hand."""

import pytest
from markdown_tables import PROVENANCE, rows

from dnabook.records import Record
from dnabook.tables import feature_correlation as tables

PAIRS = [["cnn", "regular"], ["cnn", "decorrelated"], ["fully_connected", "regular"]]


def recorded(there=0.97, back=0.95, *, seeds=(0, 1), spread=0.0):
    """Regular CNNs predict each other as given, ± spread by seed; no decorrelated pair is like another."""

    def values(architecture, arm, seed):
        less = 0.5 * (arm != "regular") + 0.1 * (architecture != "cnn")
        moved = spread * (1 - 2 * seed)
        predictability = [
            {
                "source": source, "target": 3 - source, "heldout": r2 - less + moved, "in_sample": 0.11,
                "batch_in_sample": 0.99 - less - source / 100, "chance_floor": 0.22, "rank": source,
                "effective_rank": 12.0 + source,
            }
            for source, r2 in ((1, there), (2, back))
        ]  # fmt: skip
        features = [{"epsilon": e, "pearson": 0.3 + e + less + seed / 10} for e in (0.0, 0.1)]
        return {"accuracy": [0.95, 0.95], "predictability": predictability, "features": features}

    trials = [
        {
            "setting": {"architecture": architecture, "arm": arm}, "seed": seed,
            "values": values(architecture, arm, seed), "provenance": PROVENANCE,
        }
        for architecture, arm in PAIRS for seed in seeds
    ]  # fmt: skip
    config = {"pairs": PAIRS, "training": {"batch_size": 5}}
    return Record("feature_correlation", "smoke", config, trials)


def test_each_column_is_what_its_head_says_and_each_row_a_direction_of_regular_pairs():
    """The floor is rank / (N − 1): 1 / 4 from model 1, 2 / 4 from model 2."""
    text = tables.predictability(recorded())
    found = rows(text)
    assert found["pair"] == ["held out", "in sample, N = 5", "floor, N = 5", "effective rank"]
    assert found["CNN, 1 → 2"] == ["0.97 ± 0.00", "0.98 ± 0.00", "0.25 ± 0.00", "13.00 ± 0.00"]
    assert found["CNN, 2 → 1"] == ["0.95 ± 0.00", "0.97 ± 0.00", "0.50 ± 0.00", "14.00 ± 0.00"]
    assert found["fully connected, 1 → 2"][:2] == ["0.87 ± 0.00", "0.88 ± 0.00"]
    assert list(found)[1:] == [
        "CNN, 1 → 2", "CNN, 2 → 1", "fully connected, 1 → 2", "fully connected, 2 → 1",
    ]  # fmt: skip
    assert text.endswith("|\n\nsmoke scale · 2 seeds · CPU · 2026-01-02.")


def test_one_seed_has_no_interval_and_an_architecture_without_trials_no_value():
    record = recorded(seeds=(0,))
    record.trials = [t for t in record.trials if t["setting"]["architecture"] == "cnn"]
    found = rows(tables.predictability(record))
    assert found["CNN, 1 → 2"] == ["0.97", "0.98", "0.25", "13.00"]
    assert found["fully connected, 2 → 1"] == ["no value"] * 4


@pytest.mark.parametrize(
    ("there", "back", "root", "reached"),
    [(0.99, 0.9604, "0.980", "reached"), (0.9025, 0.99, "0.950", "not quite reached")],
)
def test_the_multiple_correlation_is_of_the_direction_that_is_predicted_less(there, back, root, reached):
    text = tables.coefficients(recorded(there, back))
    both = f"**{there:.2f} ± 0.00** one way and **{back:.2f} ± 0.00** the other"
    assert text.startswith(
        f"Between regular CNNs held-out R² is {both}. "
        f"The multiple correlation √R² is {root}, so the paper's “0.975 on average” is {reached} on natural"
    )


def test_pearsons_coefficient_is_that_of_natural_images_with_its_interval():
    """0.30 and 0.40 by seed: 0.35, and t(1) = 12.71 times 0.05."""
    text = tables.coefficients(recorded(spread=0.01))
    assert "coefficient of the flattened features is 0.35 ± 0.64 and cannot be it." in text
    assert "**0.97 ± 0.13** one way and **0.95 ± 0.13** the other" in text


def test_with_one_seed_the_sentence_has_no_intervals():
    text = tables.coefficients(recorded(seeds=(0,)))
    assert "**0.97** one way and **0.95** the other" in text and "features is 0.30 and cannot" in text
