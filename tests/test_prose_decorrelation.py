"""Chapter 4's numbers in prose, against the records."""

from __future__ import annotations

from prose import about, differ, excludes_zero, lower, number, paper, says, whole

from dnabook import summaries

PAGE = "04_decorrelation"


# --- A fixed surrogate ---------------------------------------------------------------------------


def test_a_fixed_surrogate_protects_against_unseen_cnns_as_far_as_the_page_says():
    record = paper("surrogate")

    def change(arm, attacker, epsilon):
        where = {"attacker": attacker, "epsilon": epsilon}
        defended, usual = (summaries.transfer_by_seed(record, arm=each, **where) for each in (arm, "regular"))
        return differ(defended, usual)

    strong, weak = change("corrected", "cnn", 0.10), change("corrected", "cnn", 0.05)
    says(
        PAGE,
        f"At paper scale ({number(len(record.whole_seeds))} seeds)",
        f"At ε = 0.10 attacks through CNNs that it never met transfer {lower(strong)} points less",
        f"At ε = 0.05 they transfer {whole(weak)} points less on average, by an interval that just contains",
    )
    assert excludes_zero(strong) and weak.mean < 0 and not excludes_zero(weak)
    assert about(change("corrected", "surrogate", 0.10).mean, strong.mean)  # "as much as those through …"
