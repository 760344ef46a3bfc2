# SPDX-License-Identifier: Apache-2.0
"""The model: three interleaved spirals told apart by one hidden layer."""

import numpy as np

CLASSES = 3
FEATURES = 6


def make_points(seed, count):
    """Points on three noisy spirals, and which spiral each belongs to."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    radius = random.uniform(0.15, 1.0, count)
    angle = 4.0 * radius + labels * 2 * np.pi / CLASSES
    angle += random.normal(0.0, 0.5, count)
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1)
    return points, labels


def features(points):
    """The coordinates and what a spiral is made of: radius and angle."""
    x, y = points[:, 0], points[:, 1]
    radius = np.hypot(x, y)
    angle = np.arctan2(x, y)
    return np.stack([x, y, radius, np.sin(angle - 4.0 * radius),
                     np.cos(angle - 4.0 * radius), np.ones_like(x)], 1)


def predict(weights, points):
    """Scores per class, one row a point."""
    hidden = np.tanh(features(points) @ weights["hidden"])
    return hidden @ weights["output"]


def accuracy(weights, points, labels):
    return float(np.mean(predict(weights, points).argmax(1) == labels))
