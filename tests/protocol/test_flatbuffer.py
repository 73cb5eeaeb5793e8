from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.protocol.flatbuffer import Table, item_of, root_of


def written() -> bytes:
    """A file by the format's description: the root's offset, a list of fields, the table, what its offsets point to.

    Field 0 is the int32 -5, field 1 the text "hi", field 2 is not there, field 3 is the int16 vector [1, -2].
    """
    fields = struct.pack("<HHHHHH", 12, 16, 4, 8, 0, 12)  # at byte 4
    table = struct.pack("<iiII", 12, -5, 8, 12)  # at byte 16
    return struct.pack("<I", 16) + fields + table + struct.pack("<I", 2) + b"hi\0\0" + struct.pack("<Ihh", 2, 1, -2)


def test_fields_are_read_by_their_number_and_absent_ones_have_the_default() -> None:
    table = root_of(written())
    assert table.number(0, "i") == -5
    assert table.text(1) == "hi"
    assert (table.number(2, "i"), table.text(2), table.table(2), table.tables(2)) == (0, "", None, [])
    assert table.numbers(3, "h") == [1, -2]
    assert table.number(99, "i") == 0
    assert [table.has(field) for field in (0, 1, 2, 3, 99)] == [True, True, False, True, False]


# Each is a place in the file, what stands there instead, and what reading the text of field 1 says of it.
DAMAGE = {
    "an offset out of the file": (24, struct.pack("<I", 2**32 - 8), "lies behind the file's end"),
    "a table that is longer than the file": (6, struct.pack("<H", 60), "does not end within the file"),
    "a field in the table's own frame": (10, struct.pack("<H", 2), "field 1 .* lies outside of it"),
    "a text without a zero behind it": (38, b"!", "is not closed by a zero"),
    "a text that is not UTF-8": (36, b"\xff", "utf-8"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_native_code_would_trip_over_is_refused(damage: str) -> None:
    place, instead, reason = DAMAGE[damage]
    data = bytearray(written())
    data[place : place + len(instead)] = instead
    with pytest.raises(ValueError, match=reason):
        root_of(bytes(data)).text(1)


@given(st.binary(max_size=80))
def test_no_bytes_bring_it_out_of_the_file(data: bytes) -> None:
    walk(data)


@given(st.integers(0, len(written()) - 1), st.integers(0, 255))
def test_no_changed_byte_brings_it_out_of_the_file(place: int, value: int) -> None:
    data = bytearray(written())
    data[place] = value
    walk(bytes(data))


def walk(data: bytes) -> None:
    """Read everything; only ValueError may come out."""
    try:
        table: Table = root_of(data)
        for field in range(5):
            table.number(field, "q")
            table.text(field)
            table.numbers(field, "q")
            table.tables(field)
    except ValueError:
        return


def test_an_item_is_found_by_its_place() -> None:
    assert item_of(["a", "b"], 1) == "b"
    for place in (-1, 2):
        with pytest.raises(ValueError, match=r"item .* of 2"):
            item_of(["a", "b"], place)
