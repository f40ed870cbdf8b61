import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.documents import read_document, read_documents, read_lines, read_manifest
from gateway.cli.failures import Misuse
from routing.codec import MAX_BYTES

Write = Any


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str | bytes, name: str = "document.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return _write


def test_times_stay_text_when_a_manifest_is_yaml(write: Write) -> None:
    document = read_document(write("created: 2026-10-02T09:00:00Z\ndata: {version: 2026-10-01}\n"))
    assert document == {"created": "2026-10-02T09:00:00Z", "data": {"version": "2026-10-01"}}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"),
        ("0x1F", "0x1F"),
        ("0123456", "0123456"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("9e12345", "9e12345"),
        ("<<", "<<"),
        ("true", True),
        ("null", None),
        ("", None),
        ("-12", -12),
        ("1e-3", 0.001),
        ("0.5", 0.5),
        ("'7'", "7"),
    ],
)
def test_a_yaml_word_means_what_it_looks_like(write: Write, word: str, value: object) -> None:
    read = read_document(write(f"field: {word}\n"))["field"]
    assert read == value
    assert type(read) is type(value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4))
def test_json_is_read_the_same_when_it_stands_in_a_yaml_file(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("d.json", "d.yaml"):
        (folder / name).write_text(json.dumps(document, ensure_ascii=True), encoding="utf-8")
    assert read_document(folder / "d.json") == document
    # YAML keeps the two halves of a JSON escape such as \\ud83d\\ude00 apart; written as JSON they are one again.
    assert json.loads(json.dumps(read_document(folder / "d.yaml"))) == document


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("split: {'1': 9000, '1': 1000}", 'line 1: the key "1" stands twice'),
        ("a: 1\nb: 2\na: 3", 'line 3: the key "a" stands twice'),
        ("split: {1: 9000, 2: 1000}", "line 1: the key 1 is no text; write it in quotes"),
        ("a: &x [1]\nb: *x", "line 2: aliases are not taken"),
        ("a: &x [*x]", "aliases are not taken"),
        ("a: [1", "line 1:"),
        ("a: 1\n---\nb: 2", "line 2:"),
        ("- 1", "expected one document with fields"),
        ("", "expected one document with fields"),
        ("metrics: {accuracy: !!float .nan}", "metrics.accuracy: nan has no place in JSON"),
        ("tags: [!!binary aGk=]", "tags[0]: b'hi' has no place in JSON"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        (f"a: {'1' * 5000}", "too many digits"),
        (b"a: \xff", "not UTF-8 (byte 3)"),
        ("a: \x01", "not YAML"),
        ("[" * 1500, "nested too deeply"),
        ("? [a]\n: 1", "the key ['a'] is no text"),
    ],
)
def test_yaml_is_refused_with_its_place_when_it_is_no_json(write: Write, text: str | bytes, complaint: str) -> None:
    path = write(text)
    with pytest.raises(Misuse) as caught:
        read_document(path)
    assert complaint in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.advice


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": 1, "a": 2}', "a: the field stands twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        (f'{{"a": {"1" * 5000}}}', "integer of more than 1000 digits"),
    ],
)
def test_json_is_refused_when_it_is_not_strict(write: Write, text: str, complaint: str) -> None:
    with pytest.raises(Misuse, match=r"document\.json") as caught:
        read_document(write(text, "document.json"))
    assert complaint in caught.value.message


def test_a_file_is_refused_when_it_is_missing_a_folder_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="No such file or directory"):
        read_document(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(Misuse, match="cannot be read"):
        read_document(tmp_path / "folder.json")
    with pytest.raises(Misuse, match=r"\.json, \.yaml, \.yml"):
        read_document(tmp_path / "route.toml")


def test_a_file_is_refused_when_it_is_larger_than_any_document(write: Write) -> None:
    with pytest.raises(Misuse, match="larger than 16777216 bytes"):
        read_document(write(b" " * (MAX_BYTES + 1)))


def test_the_artifact_is_absolute_when_the_manifest_names_it_beside_itself(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write('{"backend": {"onnx": {"path": "model.onnx"}}}', "manifest.json")
    monkeypatch.chdir(tmp_path.parent)
    assert read_manifest(Path(tmp_path.name))["backend"]["onnx"]["path"] == str(tmp_path / "model.onnx")


def test_an_absolute_artifact_and_an_odd_backend_are_left_alone(write: Write) -> None:
    absolute = read_manifest(write("backend: {onnx: {path: /models/m.onnx}}"))
    assert absolute["backend"]["onnx"]["path"] == "/models/m.onnx"
    for odd in ("backend: 7", "backend: {onnx: [1]}", "backend: {onnx: {path: 3}}", "model: m"):
        assert read_manifest(write(odd))  # the admin API will say what is wrong, with the path of the field


def test_a_folder_is_refused_when_it_has_no_manifest_or_several(tmp_path: Path, write: Write) -> None:
    with pytest.raises(Misuse, match=r"no manifest\.json, manifest\.yaml or manifest\.yml"):
        read_manifest(tmp_path)
    write("{}", "manifest.json")
    write("{}", "manifest.yml")
    with pytest.raises(Misuse, match=r"has manifest\.json and manifest\.yml"):
        read_manifest(tmp_path)


def test_keys_are_the_lines_of_a_file_when_it_has_spaces_and_empty_lines(write: Write) -> None:
    assert read_lines(write("u-1\r\n\n  u-2  \nü\n", "keys.txt")) == ["u-1", "u-2", "ü"]
    with pytest.raises(Misuse, match="not UTF-8"):
        read_lines(write(b"\xff", "keys.txt"))


def test_every_document_of_a_file_is_read_in_its_order(write: Write) -> None:
    several = write("---\nname: a\n---\n---\nmodel: m\nsplit: {'1': 10000}\n---\n")
    array = write('[{"name": "b"}, {"name": "c"}]', "many.json")
    alone = write('{"name": "d"}', "one.json")
    read = read_documents([several, array, alone])
    assert [document.get("name") for document in read] == ["a", None, "b", "c", "d"]


def test_a_folder_stands_for_its_json_and_yaml_files_by_name(tmp_path: Path, write: Write) -> None:
    write("name: b", "b.yml")
    write('{"name": "a"}', "a.json")
    write("name: c", "c.yaml")
    write("no document", "notes.txt")
    (tmp_path / "deeper.json").mkdir()
    assert [document["name"] for document in read_documents([tmp_path])] == ["a", "b", "c"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misuse, match="no document there"):
        read_documents([tmp_path / "empty"])


def test_the_artifact_of_every_manifest_is_beside_its_file(tmp_path: Path, write: Write) -> None:
    (tmp_path / "models").mkdir()
    write('[{"backend": {"onnx": {"path": "1.onnx"}}}, {"backend": 7}]', "models/all.json")
    first, second = read_documents([tmp_path / "models"])
    assert first["backend"]["onnx"]["path"] == str(tmp_path / "models" / "1.onnx")
    assert second == {"backend": 7}


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ("name: a\n---\n- b\n", "d.yaml", "d.yaml, document 2: expected a document with fields"),
        ("name: a\n---\nkeys: [!!float .inf]\n", "d.yaml", "d.yaml, document 2: keys[0]: inf has no place in JSON"),
        ("name: a\n---\nname: [b\n", "d.yaml", "d.yaml, line 4:"),
        ('[{"name": "a"}, 1]', "d.json", "d.json, [1]: expected a JSON object, or an array of them"),
        ('[{"a": 1, "a": 2}]', "d.json", "[0].a: the field stands twice"),
        ("7", "d.json", "d.json: expected a JSON object, or an array of them"),
        ("[", "d.json", "not JSON"),
        ("", "d.yaml", "no document there"),
        ("name: a", "d.toml", "expected a file that ends in"),
    ],
)
def test_documents_are_refused_with_their_place(write: Write, text: str, name: str, complaint: str) -> None:
    with pytest.raises(Misuse) as caught:
        read_documents([write(text, name)])
    assert complaint in caught.value.message
