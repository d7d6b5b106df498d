"""When the next request to a follower leaves."""

from __future__ import annotations

from hasys.store.raft.progress import BATCH_BYTES, PIPELINE, Progress


def streaming() -> Progress:
    """A follower that is known to have the log up to entry 9."""
    progress = Progress(next=10, connected=True, probing=False)
    progress.acknowledged(9)
    return progress


def test_small_requests_beyond_the_pipeline_wait_for_an_answer_and_then_go_together() -> None:
    progress = streaming()
    for last in range(10, 10 + PIPELINE):
        assert progress.may_send(last)
        progress.sending(last, 100, now=0.0)
    newest = 10 + PIPELINE + 5
    assert not progress.may_send(newest)
    progress.acknowledged(10)
    assert progress.may_send(newest)
    assert progress.next == 10 + PIPELINE, "the next request begins where the last one ended"


def test_full_requests_follow_each_other_without_waiting() -> None:
    progress = streaming()
    for last in range(10, 10 + 2 * PIPELINE):
        assert progress.may_send(last)
        progress.sending(last, BATCH_BYTES, now=0.0)
    assert progress.may_send(10 + 2 * PIPELINE)
