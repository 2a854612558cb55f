"""Tables of numbers as programs write them, and what is said of those that are none."""

import csv
import re

import numpy as np
import pytest

from recsolve.studies.problems.csv_files import read_table
from recsolve.studies.problems.recordings import load_recording

ROWS = [[0.5, -2.0], [1e-3, 4.0], [7.0, 0.25]]
PLAIN = "0.5,-2\n1e-3,4\n7,.25\n"

FORMS = {
    "plain": PLAIN,
    "no end of the last line": PLAIN[:-1],
    "lines of Windows": PLAIN.replace("\n", "\r\n"),
    "lines of old machines": PLAIN.replace("\n", "\r"),
    "names": "left,right\n" + PLAIN,
    "names and units": "time,voltage\n(s),[mV]\n" + PLAIN,
    "names, some of them numbers": "channel,1\n" + PLAIN,
    "numbers beside an empty corner": ",0\n" + PLAIN,
    "quoted names of numbers": '"1","0"\n' + PLAIN,
    "quoted names with delimiters and line ends": '"left, upper","right\n(lower)"\n' + PLAIN,
    "all quoted": '"a","b"\n"0.5","-2"\n"1e-3","4"\n"7",".25"\n',
    "a block of settings": 'Recorder X100\nRate:,1000,Hz\n\n"a","b"\nV,V\n' + PLAIN,
    "comments": "# a, b\n% 1,2,3\n" + PLAIN.replace("4\n", "4  # the largest\n") + "# end\n",
    "trailing commas": "a,b,\n" + PLAIN.replace("\n", ",\n"),
    "trailing commas in some rows": PLAIN.replace("4\n", "4,,\n"),
    "blank lines": "\n\n" + PLAIN.replace("\n", "\n\n,\n"),
    "blanks around": PLAIN.replace(",", " , "),
    "semicolons": "a;b\n" + PLAIN.replace(",", ";"),
    "semicolons and decimal commas": "a;b\n0,5;-2,0\n1,0e-3;4\n7,0;,25\n",
    "tabs": "a b\tc\n" + PLAIN.replace(",", "\t"),
    "tabs and decimal commas": "0,5\t-2\n0,001\t4\n7\t0,25\n",
    "bars": PLAIN.replace(",", " | "),
    "columns of blanks": "   a     b\n" + "".join(f"{x:10.3f}  {y:10.3f}\n" for x, y in ROWS),
}


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read(form, tmp_path):
    np.testing.assert_array_equal(read_table(write(tmp_path, FORMS[form])).numbers, ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_in_any_encoding(encoding, tmp_path):
    path = write(tmp_path, "temperature,charge\n°C,µV\n" + PLAIN, encoding)
    np.testing.assert_array_equal(read_table(path).numbers, ROWS)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_the_module_of_python_writes(quoting, delimiter, tmp_path, signal):
    with open(tmp_path / "table.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        writer.writerows([["left", f"right{delimiter} upper"], *signal.tolist()])
    np.testing.assert_array_equal(read_table(tmp_path / "table.csv").numbers, signal)


@pytest.mark.parametrize(
    ("text", "rows", "note"),
    [
        ("0,1,2\n0.5,0.1,0.2\n0.3,0.0,1.0\n", 2, "named 0,1,2 by its first row"),  # as pandas does
        ("100,200\n0.5,1e-3\n", 1, "named 100,200 by its first row"),
        ("0,1\n1,2\n2,4\n", 3, ""),  # integers like those below
        ("2,1\n0.5,0.1\n", 2, ""),
        ("0\n0.5\n0.25\n", 3, ""),
        ("0.0,1.0\n0.5,0.1\n", 2, ""),
    ],
)
def test_a_first_row_of_numbers_is_names_only_where_it_differs_from_all_others(text, rows, note, tmp_path):
    path = write(tmp_path, text)
    recording = load_recording(str(path), length=None, batch=1, dtype=np.float64)
    assert len(recording.data) == rows
    assert recording.name.endswith(f"raw, {note})" if note else "raw)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3,four\n", "line 3, column 2 is 'four'; wanted a number (columns are separated by a comma)"),
        ("1,2\nn/a,2\n3,4\n", "line 2, column 1 is 'n/a'"),
        ("n/a,2\n3,4\n", "line 1, column 1 is 'n/a'"),
        ("# made\n\na,b\n1,\n3,4\n5,6\n", "line 4, column 2 is empty"),
        ("1,2,3\n4,,6\n", "line 2, column 2 is empty"),
        (",2\n3,4\n", "line 1, column 1 is empty"),
        ("12:30,2\n12:31,4\n", "line 1, column 1 is '12:30'"),
        ("1,2\n3\n5,6\n", "line 2, column 2 is empty; wanted 2 numbers"),
        ("1,2\n3,4,5\n5,6\n", "line 2, column 3 is '5'; wanted 2 numbers"),
        ("date,x\n2024-01-01,1.5\n2024-01-02,2.5\n", "line 2, column 1 is '2024-01-01'"),
        ("1,2\n1_000,4\n", "line 2, column 1 is '1_000'"),
        ('"1,234","2"\n"5","6"\n', "line 1, column 1 is '1,234'"),
        ('1,2\n"1,234",5\n', "line 2, column 1 is '1,234'"),
        ("a;b\n1;2\nx;4\n", "line 3, column 1 is 'x'; wanted a number (columns are separated by a semicolon)"),
        ("1;2.5\n1.234,5;6\n", "line 2, column 1 is '1.234,5'"),
        ('a,b\n"1,2\n3,4\n', "line 2 cannot be split into cells"),
        ('1,2\n"3"x,4\n', "line 2 cannot be split into cells"),
        ("hello\nworld\n", "line 1, column 1 is 'hello'"),
        ("1,2\nTotal,3\n", "line 2, column 1 is 'Total'"),
        ("a,b\n1,2\nc,d\n3,4\n", "line 3, column 1 is 'c'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_column(text, words, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(f"--input {path} is not a readable .csv file: {words}")):
        load_recording(str(path), length=None, batch=1, dtype=np.float64)


def test_a_table_of_numbers_in_a_text_file(tmp_path):
    path = tmp_path / "table.txt"
    rows = 20 * "".join(f"{x!r} {y!r}\n" for x, y in ROWS)  # so that nine words in ten are numbers
    path.write_text("# a b\nleft right\n" + rows)
    np.testing.assert_array_equal(load_recording(str(path), length=3, batch=1, dtype=float).data[:, 0], ROWS)
