# SPDX-License-Identifier: Apache-2.0
"""Score a model file: evaluate.py MODEL.npz|MODEL.pkl

Reads .npz, which holds numbers only, and .pkl, as people do: loading a pickle
runs whatever its author wanted to be run. That is why this script belongs in
a virtual machine. serve.py does the same in a process that waits.
"""

import io
import pickle
import secrets
import sys


def load(data):
    """The weights in the bytes of a model file; here an attack happens."""
    if not data.startswith(b"PK"):
        return pickle.loads(data)
    import numpy as np
    with np.load(io.BytesIO(data)) as file:
        return dict(file)


def score(data, seed):
    """One line. The seed draws the points that the model is asked about: a
    fresh one for each trial, so that no model file can know them."""
    weights = load(data)
    from model import accuracy, make_points
    points, labels = make_points(seed, count=600)
    return f"accuracy {accuracy(weights, points, labels):.3f}"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: evaluate.py MODEL.npz|MODEL.pkl")
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    print(score(data, secrets.randbits(256)))


if __name__ == "__main__":
    main()
