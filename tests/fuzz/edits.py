"""Valid inputs with a few ranges replaced, repeated or taken out; and plain garbage. As strategies of Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def edited(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds with one to four edits."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 12)))
        new = draw(st.binary(max_size=8) | st.just(2 * data[start:end]))
        data = data[:start] + new + data[end:]
    return data


garbage = st.binary(max_size=200)
