"""Messages for people: one line, of a length that is read."""

import pickle

import pytest

from vit_backbone import UserError, WeightsError, quoted, reason_of, shorten


@pytest.mark.parametrize("kind", [UserError, WeightsError])
def test_no_message_is_long_or_of_several_lines(kind):
    error = kind("a.yaml: key: got " + "x\n\x1b[31m\t" * 5000 + "; rename the file")
    assert len(str(error)) <= 500
    assert str(error).isprintable()
    assert str(error).startswith("a.yaml: key: got x")
    assert str(error).endswith("x     [31m ; rename the file".replace("     ", "  "))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


def test_short_messages_are_as_they_are():
    assert str(UserError("Größe 3: ±1 is expected")) == "Größe 3: ±1 is expected"
    assert str(UserError(ValueError("other"))) == "other"


@pytest.mark.parametrize("longest", [10, 11, 60, 120])
def test_values_are_cut_in_the_middle(longest):
    text = "".join(chr(97 + i % 26) for i in range(5000))
    cut = shorten(text, longest)
    assert len(cut) == longest
    begin, end = cut.split(" ... ")
    assert text.startswith(begin)
    assert text.endswith(end)
    assert shorten(text[:longest], longest) == text[:longest]


def test_the_end_of_a_long_text_is_shown():
    said = quoted("a" * 2000 + "END")
    assert len(said) <= 100
    assert said.endswith("aEND'")
    assert quoted(10**5000) == "a very long int"
    assert quoted("b" * 50) == repr("b" * 50)


def test_an_error_without_a_text_says_where_it_was_raised():
    assert reason_of(RuntimeError("  of\nthe disk ")) == "of the disk"
    assert reason_of(RuntimeError()) == "RuntimeError"
    with pytest.raises(RuntimeError) as raised:
        fail()
    line = fail.__code__.co_firstlineno + 1
    assert reason_of(raised.value) == f"RuntimeError in test_errors.py, line {line}"


def fail():
    raise RuntimeError
