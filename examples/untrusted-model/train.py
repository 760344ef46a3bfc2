# SPDX-License-Identifier: Apache-2.0
"""Train the model and write its weights: train.py MODEL.npz

Deterministic: the same numbers come out of every run.
"""

import sys

import numpy as np

from model import CLASSES, FEATURES, accuracy, features, make_points

HIDDEN = 12
STEPS = 150
RATE = 2.0


def train(points, labels):
    random = np.random.default_rng(1)
    hidden = random.normal(0.0, 0.5, (FEATURES, HIDDEN))
    output = random.normal(0.0, 0.5, (HIDDEN, CLASSES))
    inputs = features(points)
    wanted = np.eye(CLASSES)[labels]
    for _ in range(STEPS):
        inner = np.tanh(inputs @ hidden)
        scores = np.exp(inner @ output)
        error = scores / scores.sum(1, keepdims=True) - wanted
        error /= len(points)
        inner_error = (error @ output.T) * (1.0 - inner * inner)
        output -= RATE * inner.T @ error
        hidden -= RATE * inputs.T @ inner_error
    return {"hidden": hidden, "output": output}


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: train.py MODEL.npz")
    points, labels = make_points(seed=7, count=240)
    weights = train(points, labels)
    np.savez(sys.argv[1], **weights)
    print(f"trained on {len(points)} points,"
          f" accuracy {accuracy(weights, points, labels):.3f}")


if __name__ == "__main__":
    main()
