"""The example models are what their manifests say, to the last digit."""

import hashlib
import json

import numpy as np
import onnxruntime
import pytest

from gateway.catalog import Manifest, parse_manifest
from gateway.examples import digit_samples, digits_folder

VERSIONS = ("1", "2", "3")
ATTAINED = {"1": (0.74, 0.79), "2": (0.95, 0.97), "3": (0.975, 1.0)}
"""Between which accuracies each version lies: a poor one, a good one, a clearly better one."""


def manifest(version: str) -> Manifest:
    return parse_manifest((digits_folder() / version / "manifest.json").read_bytes())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifest_is_complete_and_names_its_place(version: str) -> None:
    found = manifest(version)
    assert (found.model, found.version) == ("digits", version)
    assert found.missing == ()
    assert found.created is not None
    assert found.description
    assert found.hyperparameters
    assert found.data.sha256 == manifest("1").data.sha256


@pytest.mark.parametrize("version", VERSIONS)
def test_the_digest_is_that_of_the_file_beside_the_manifest(version: str) -> None:
    found = manifest(version)
    assert found.backend.onnx is not None
    content = (digits_folder() / version / found.backend.onnx.path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == found.digest


@pytest.mark.parametrize("version", VERSIONS)
def test_the_figures_are_what_the_model_does_on_the_held_out_samples(version: str) -> None:
    samples = digit_samples()
    session = onnxruntime.InferenceSession(
        (digits_folder() / version / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    pixels = np.array([sample.pixels for sample in samples], dtype=np.float32)
    truth = np.array([sample.label for sample in samples])
    labels, probabilities = session.run(["label", "probabilities"], {"pixels": pixels})
    figures = manifest(version).metrics
    assert figures["test_samples"] == len(samples)
    assert figures["accuracy"] == int(np.sum(labels == truth)) / len(samples)
    assert figures["worst_recall"] == min(float(np.mean(labels[truth == digit] == digit)) for digit in range(10))
    of_truth = np.clip(probabilities[np.arange(len(truth)), truth].astype(np.float64), 1e-15, 1)
    assert figures["log_loss"] == pytest.approx(float(np.mean(-np.log(of_truth))), abs=1e-6)
    low, high = ATTAINED[version]
    assert low <= figures["accuracy"] <= high


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_the_same_signature(version: str) -> None:
    session = onnxruntime.InferenceSession(
        (digits_folder() / version / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    shown = [(one.name, one.type, one.shape) for one in (*session.get_inputs(), *session.get_outputs())]
    assert shown == [
        ("pixels", "tensor(float)", [None, 64]),
        ("label", "tensor(int64)", [None]),
        ("probabilities", "tensor(float)", [None, 10]),
    ]


def test_the_samples_show_every_digit_about_as_often_as_the_others() -> None:
    labels = [sample.label for sample in digit_samples()]
    assert len(labels) == 360
    assert all(30 <= labels.count(digit) <= 40 for digit in range(10))


def test_all_of_it_is_small_enough_for_a_package() -> None:
    files = [*digits_folder().glob("*/*.onnx"), *digits_folder().glob("*/*.json"), *digits_folder().glob("*.json")]
    assert len(files) == 7
    assert sum(file.stat().st_size for file in files) < 200_000


def test_a_manifest_names_the_script_that_made_it() -> None:
    document = json.loads((digits_folder() / "3" / "manifest.json").read_bytes())
    assert document["code"]["path"].endswith("examples/digits/train.py")
    assert (digits_folder() / "train.py").exists()
