"""The ledger of an update, alone: no disk, no database, no encoder."""

from __future__ import annotations

from clipkit.index.ledger import Ledger
from clipkit.store.records import Known, ScannedFile, Written

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


def known(id_: int, path: str, sha256: bytes | None, *, state: str = "ok", is_embedded: bool = True) -> Known:
    return Known(id_, path, 1, 2, 3, 4, sha256, state, is_embedded)


def ledger(*rows: Known, absent: tuple[Known, ...] = (), replaced: dict[bytes, int] | None = None) -> Ledger:
    return Ledger(rows, absent=absent, replaced=replaced or {})


def found(path: str) -> ScannedFile:
    return ScannedFile(path, 1, 2, 3, 4)


def test_it_contains_what_a_row_has_the_vector_of() -> None:
    book = ledger(known(1, "a", A), known(2, "bad", B, state="failed", is_embedded=False), known(3, "unread", None))
    assert (A in book, B in book, len(book)) == (True, False, 1)
    assert (book.id_of(A), book.id_of(B)) == (1, None)
    assert (book.holds("a", A), book.holds("a", B), book.holds("bad", B)) == (True, False, False)


def test_new_content_is_found_in_the_row_that_was_written_for_it() -> None:
    book = ledger()
    book.put("a", A, Written(1))
    assert (book.id_of(A), book.holds("a", A)) == (1, True)


def test_a_copy_leaves_the_first_row_as_the_source() -> None:
    book = ledger(known(1, "a", A))
    book.put("b", A, Written(2))
    assert (book.id_of(A), book.holds("a", A), book.holds("b", A)) == (1, True, True)


def test_what_a_path_held_before_is_found_in_the_row_that_keeps_it() -> None:
    book = ledger(known(1, "a", A))
    book.put("a", B, Written(1, replaced_id=7))
    assert (book.id_of(A), book.id_of(B)) == (7, 1)
    assert (book.holds("a", A), book.holds("a", B)) == (False, True)


def test_two_files_that_swapped_their_names_both_find_their_old_content() -> None:
    book = ledger(known(1, "a", A), known(2, "b", B))
    book.put("a", B, Written(1, replaced_id=7))  # copied from row 2
    assert book.id_of(A) == 7
    book.put("b", A, Written(2, replaced_id=8))
    assert book.holds("a", B)
    assert book.holds("b", A)
    assert book.id_of(B) == 8  # row 1 has it too; either is right


def test_content_that_another_path_holds_too_stays_where_it_is_when_one_is_replaced() -> None:
    book = ledger(known(1, "a", A), known(2, "copy", A))
    assert book.id_of(A) == 2
    book.put("a", B, Written(1, replaced_id=7))
    assert book.id_of(A) == 2


def test_a_path_that_cannot_be_read_any_more_holds_nothing_and_its_old_content_is_not_lost() -> None:
    book = ledger(known(1, "a", A))
    book.put("a", None, Written(1, replaced_id=7))
    assert (book.holds("a", A), book.id_of(A)) == (False, 7)


def test_what_an_earlier_run_replaced_is_a_source_until_a_row_that_answers_has_it() -> None:
    assert ledger(replaced={A: 7}).id_of(A) == 7
    assert ledger(known(1, "a", A), replaced={A: 7}).id_of(A) == 1


def test_it_knows_whether_a_replaced_row_is_there_to_be_dropped() -> None:
    assert ledger(replaced={A: 7}).has_replaced
    book = ledger(known(1, "a", A))
    assert not book.has_replaced
    book.put("b", C, Written(2))
    assert not book.has_replaced
    book.put("a", B, Written(1, replaced_id=7))
    assert book.has_replaced


def test_an_absent_row_is_taken_over_once() -> None:
    gone = known(1, "old", A, state="missing")
    book = ledger(gone, absent=(gone,))
    assert book.is_absent(1)
    book.move(1, "new")
    assert not book.is_absent(1)
    assert (book.id_of(A), book.holds("new", A), book.holds("old", A)) == (1, True, False)


def test_twins_wait_in_order_and_are_taken_once() -> None:
    book = ledger()
    book.wait(A, found("b"))
    book.wait(B, found("x"))
    book.wait(A, found("c"))
    assert A not in book
    assert book.take_waiting(A) == [found("b"), found("c")]
    assert book.take_waiting(A) == []
    assert book.take_waiting(B) == [found("x")]


def test_bad_content_has_its_reason_and_no_row() -> None:
    book = ledger()
    assert book.reason_against(A) is None
    book.condemn(A, "cut short")
    assert book.reason_against(A) == "cut short"
    assert A not in book
    assert len(book) == 0
