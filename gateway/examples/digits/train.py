"""Train the example models: `python -m gateway.examples.digits.train --out DIR` (needs the extra `train`).

Data: scikit-learn's `load_digits` (the test part of UCI's "Optical Recognition of Handwritten Digits", 1 797 images of
8×8 grey levels from 0 to 16). Of these, 360 are held out, stratified by label and chosen by SPLIT_SEED; `samples.json`
is that part. `data.sha256` of every manifest is the sha256 of all pixels as uint8 in C order (1 797 × 64 bytes)
followed by all labels as uint8 (1 797 bytes), before the split.

Every figure in a manifest is measured through ONNX Runtime on the held-out part, from the very bytes that are written.
With the same versions of the libraries, two runs write the same bytes.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import sklearn
from msgspec import Struct
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier

MODEL = "digits"
OPSET = 17
HELD_OUT = 360
SPLIT_SEED = 42
MODEL_SEED = 0


class Recipe(Struct, frozen=True):
    """How one version is made. `hyperparameters` are those given to the classifier; the rest are the library's."""

    version: str
    classifier: str
    hyperparameters: Mapping[str, Any]
    description: str


RECIPES = (
    Recipe(
        "1",
        "DecisionTreeClassifier",
        {"max_depth": 6, "random_state": MODEL_SEED},
        "A shallow decision tree: the first thing that worked.",
    ),
    Recipe(
        "2",
        "LogisticRegression",
        {"C": 1.0, "max_iter": 5000},
        "Logistic regression on pixels scaled to 0..1.",
    ),
    Recipe(
        "3",
        "MLPClassifier",
        {"hidden_layer_sizes": [64], "alpha": 0.001, "max_iter": 2000, "random_state": MODEL_SEED},
        "A neural network with one hidden layer of 64 on pixels scaled to 0..1.",
    ),
)
CLASSIFIERS = {kind.__name__: kind for kind in (DecisionTreeClassifier, LogisticRegression, MLPClassifier)}


class Data(Struct, frozen=True):
    """The data set, split. Pixels are float32 of shape (n, 64), labels int64 of shape (n,)."""

    sha256: str
    train_pixels: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_pixels: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def read_data() -> Data:
    """Return the digits, split the same way every time."""
    bunch = load_digits()
    pixels, labels = bunch.data.astype(np.uint8), bunch.target.astype(np.uint8)
    digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    train_x, test_x, train_y, test_y = train_test_split(
        pixels, labels, test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=labels
    )
    return Data(
        digest,
        train_x.astype(np.float32),
        train_y.astype(np.int64),
        test_x.astype(np.float32),
        test_y.astype(np.int64),
    )


def train(recipe: Recipe, data: Data) -> bytes:
    """Return a version as ONNX: `pixels` FP32 [-1,64] to `label` INT64 [-1] and `probabilities` FP32 [-1,10]."""
    classifier = CLASSIFIERS[recipe.classifier](**recipe.hyperparameters)
    pipeline = classifier if recipe.version == "1" else make_pipeline(MinMaxScaler(), classifier)
    pipeline.fit(data.train_pixels, data.train_labels)
    model = to_onnx(
        pipeline,
        name=f"{MODEL}-{recipe.version}",  # by default a random one, and the bytes would differ every time
        initial_types=[("pixels", FloatTensorType([None, 64]))],
        final_types=[("label", Int64TensorType([None])), ("probabilities", FloatTensorType([None, 10]))],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    opsets = sorted(model.opset_import, key=lambda opset: str(opset.domain))  # skl2onnx lists them in random order
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def measure(model: bytes, data: Data) -> dict[str, float]:
    """Return the figures of a model on the held-out part, as ONNX Runtime computes it."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["label", "probabilities"], {"pixels": data.test_pixels})
    truth = data.test_labels
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    recalls = [float(np.mean(labels[truth == digit] == digit)) for digit in range(10)]
    return {
        "accuracy": int(np.sum(labels == truth)) / len(truth),
        "worst_recall": min(recalls),
        "log_loss": round(float(np.mean(-np.log(np.clip(of_truth, 1e-15, 1.0)))), 6),
        "test_samples": len(truth),
    }


def manifest(recipe: Recipe, model: bytes, data: Data, git_commit: str, created: str) -> dict[str, Any]:
    """Return the manifest of a version."""
    return {
        "model": MODEL,
        "version": recipe.version,
        "backend": {"onnx": {"path": "model.onnx", "sha256": hashlib.sha256(model).hexdigest()}},
        "code": {"git_commit": git_commit, "path": "gateway/examples/digits/train.py"},
        "data": {"version": f"sklearn-digits-1797/held-out-{HELD_OUT}-seed-{SPLIT_SEED}", "sha256": data.sha256},
        "hyperparameters": {"classifier": recipe.classifier, **recipe.hyperparameters},
        "metrics": measure(model, data),
        "owner": "pointsman-examples",
        "created": created,
        "description": recipe.description,
        "tags": {"trained_with": f"scikit-learn {sklearn.__version__}", "onnx_opset": str(OPSET)},
    }


def write(folder: Path, git_commit: str, created: str) -> None:
    """Write every version and the held-out samples into `folder`, and what they are like to standard output."""
    data = read_data()
    for recipe in RECIPES:
        model = train(recipe, data)
        document = manifest(recipe, model, data, git_commit, created)
        place = folder / recipe.version
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.onnx").write_bytes(model)
        (place / "manifest.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        figures = ", ".join(f"{name} {value:.4g}" for name, value in document["metrics"].items())
        sys.stdout.write(f"{MODEL} {recipe.version}: {len(model)} bytes, {figures}\n")
    samples = [
        json.dumps({"pixels": [int(level) for level in pixels], "label": int(label)}, separators=(",", ":"))
        for pixels, label in zip(data.test_pixels, data.test_labels, strict=True)
    ]
    (folder / "samples.json").write_text("[\n" + ",\n".join(samples) + "\n]\n", encoding="utf-8")


def _head() -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - fixed


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the example digits models.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write 1/, 2/, 3/ and samples.json into")
    parser.add_argument("--git-commit", help="commit of this code for the manifests (default: git rev-parse HEAD)")
    parser.add_argument("--created", help="time for the manifests, RFC 3339 (default: now)")
    arguments = parser.parse_args()
    created = arguments.created or datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    write(arguments.out, arguments.git_commit or _head(), created)


if __name__ == "__main__":
    main()
