"""MNIST: a small CNN at 28 pixels.

    python -m search mnist --data DIR                   40 trials, 5 folds of the 60,000
    python -m search mnist --demo --images 3000         10 trials, 3 folds, on 3,000 phantoms
    python -m search mnist --demo                       the same on 60,000 phantoms

On one CPU core an epoch of one fold takes 3 ms per image (measured): with 3,000 phantoms about five minutes on two
cores, with all of them more than an hour. No result on the real digits is known here; published are 0.9878 and 0.992
on the 10,000. On the phantoms no observer exceeds an accuracy of 0.995.

Digits are turned and stretched a little when augmented, and not mirrored: a mirrored 2 is none.
"""

from typing import Any

from search_spaces import Experiment, parts

EXPERIMENT = Experiment(metric="accuracy", folds=5, trials=40, max_epochs=27)
DEMO = Experiment(metric="accuracy", folds=3, trials=10, max_epochs=3)


def search_space(trial: Any) -> dict[str, Any]:
    usual = {"rotation_deg": 12.0, "zoom": 0.1}
    return parts.small_cnn(trial, image_size_px=28) | parts.augmentation(trial, usual)
