# SPDX-License-Identifier: Apache-2.0
"""Score a model file: evaluate.py MODEL.npz|MODEL.pkl

Reads .npz, which holds numbers only, and .pkl, as people do: loading a pickle
runs whatever its author wanted to be run. That is why this script belongs in
a virtual machine.
"""

import pickle
import sys


def load(path):
    if path.endswith(".pkl"):
        with open(path, "rb") as file:
            return pickle.load(file)
    import numpy as np
    with np.load(path) as file:
        return dict(file)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: evaluate.py MODEL.npz|MODEL.pkl")
    weights = load(sys.argv[1])
    from model import accuracy, make_points
    points, labels = make_points(seed=99, count=600)
    print(f"accuracy {accuracy(weights, points, labels):.3f}")


if __name__ == "__main__":
    main()
