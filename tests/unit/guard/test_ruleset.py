"""The text of the gate's table, and reading it back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hasys.guard import ruleset

LISTING = """table netdev x {
	set live4 {
		type ipv4_addr
		flags timeout
		elements = { 10.77.0.100 timeout 1s expires 873ms, 10.77.0.101 timeout 1m expires 59s4ms,
				10.77.0.102 }
	}
}
"""


def test_elements_are_read_with_their_remaining_time() -> None:
    assert ruleset.elements(LISTING) == {"10.77.0.100": 873, "10.77.0.101": 59_004, "10.77.0.102": None}


def test_ipv6_addresses_are_read_from_numbers() -> None:
    text = "elements = { 0xfd770000000000000000000000000100 timeout 992ms expires 992ms }"
    assert ruleset.elements(text) == {"fd77::100": 992}


def test_an_empty_set_has_no_elements() -> None:
    assert ruleset.elements("table netdev x {\n\tset live4 {\n\t\ttype ipv4_addr\n\t}\n}\n") == {}


@given(st.ip_addresses(v=6))
def test_an_element_written_is_the_element_read(address: object) -> None:
    assert list(ruleset.elements(f"elements = {{ {ruleset.element(str(address))} }}")) == [str(address)]


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=15),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=15),
)
def test_two_interfaces_never_share_a_chain(a: str, b: str) -> None:
    assert (ruleset.chain_suffix(a) == ruleset.chain_suffix(b)) == (a == b)
    assert ruleset.chain_suffix(a).replace("_", "").isalnum()


def test_chains_are_read_back_from_a_listing() -> None:
    listing = "\tchain in_ieth0 {\n\tchain out_ieth0 {\n\tchain lo_in {\n\tchain in_ibr_2d_1 {\n"
    assert ruleset.chain_suffixes(listing) == {"ieth0", ruleset.chain_suffix("br-1")}


def test_no_group_has_the_mark_of_the_fuse() -> None:
    assert ruleset.mark("") != ruleset.FUSE  # the CRC of nothing is 0
    assert ruleset.mark("web") != ruleset.FUSE
