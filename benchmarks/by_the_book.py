"""A search as the guides of Ray Tune and Optuna would have it written: the other side of `versus_ray_tune`.

    python -m benchmarks.by_the_book FOLDER     FOLDER/task.json says what to search, FOLDER/results.json what came out

It knows nothing of this program. A function trainable that reads an `ImageFolder` through `DataLoader`s, a backbone of
timm, `StratifiedKFold`, `OptunaSearch`, a report per epoch, Tune's defaults for all else. Read for it: Ray's "How to
use Tune with PyTorch" and "Running Tune experiments with Optuna", PyTorch's "Transfer learning for computer vision",
scikit-learn's "Cross-validation". Where they leave a choice it is the faster one, or the one that trains what the other
side trains; versus_ray_tune.md lists them.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from safetensors.torch import load_file
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import PredefinedSplit, StratifiedKFold
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

SEARCHED = {
    "learning_rate": tune.loguniform(1e-5, 3e-4),
    "weight_decay": tune.loguniform(1e-5, 1e-1),
    "batch_size": tune.choice([16, 32]),
    "dense_width": tune.lograndint(32, 513),
    "dropout": tune.uniform(0.0, 0.7),
}


class Classifier(nn.Module):
    """A backbone, of which the last layers are trained, and a head: one logit, that of the second class."""

    def __init__(self, config: dict[str, Any], weights: str):
        super().__init__()
        self.body = timm.create_model(config["model"], num_classes=0)
        self.body.load_state_dict(load_file(weights))
        self.head = nn.Sequential(
            nn.Linear(self.body.num_features, config["dense_width"]),
            nn.ReLU(),
            nn.Dropout(config["dropout"]),
            nn.Linear(config["dense_width"], 1),
        )
        if config["unfrozen_layers"] is not None:
            layers = [layer for layer in self.body.modules() if list(layer.parameters(recurse=False))]
            self.body.requires_grad_(False)
            for layer in layers[len(layers) - config["unfrozen_layers"] :]:
                layer.requires_grad_(True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images)).squeeze(1)

    def train(self, mode: bool = True) -> "Classifier":
        """Frozen batch norm keeps its statistics, which the guides of Keras ask for and those of PyTorch forget."""
        super().train(mode)
        for layer in self.body.modules():
            if isinstance(layer, nn.BatchNorm2d) and not layer.weight.requires_grad:
                layer.eval()
        return self


def train_epoch(model: Classifier, loader: DataLoader, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    criterion = nn.BCEWithLogitsLoss()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels.float())
        loss.backward()
        optimizer.step()


def evaluate(model: Classifier, loader: DataLoader) -> tuple[float, float]:
    """AUROC and log loss."""
    model.eval()
    truth, probabilities = [], []
    with torch.no_grad():
        for images, labels in loader:
            probabilities.append(model(images).sigmoid())
            truth.append(labels)
    y_true, y_probability = torch.cat(truth).numpy(), torch.cat(probabilities).double().numpy()
    return float(roc_auc_score(y_true, y_probability)), float(log_loss(y_true, y_probability))


def cross_validate(config: dict[str, Any], task: dict[str, Any]) -> None:
    """The trainable: k networks, one epoch of each in turn, then a report of their mean."""
    torch.manual_seed(0)
    normalisation = timm.get_pretrained_cfg(config["model"])
    images = ImageFolder(
        task["images"],
        transforms.Compose(
            [
                transforms.Resize((task["image_size_px"], task["image_size_px"])),
                transforms.ToTensor(),
                transforms.Normalize(normalisation.mean, normalisation.std),
            ]
        ),
    )
    if task["fold_of"] is None:
        splits = StratifiedKFold(task["folds"], shuffle=True, random_state=0).split(images.targets, images.targets)
    else:
        names = [Path(path).relative_to(task["images"]).as_posix() for path, _ in images.samples]
        splits = PredefinedSplit([task["fold_of"][name] for name in names]).split()

    folds = []
    for trained, validated in splits:
        model = Classifier(config, task["weights"])
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, config["learning_rate"], weight_decay=config["weight_decay"])
        loading = {"batch_size": config["batch_size"], "num_workers": task["workers"]}
        training = DataLoader(Subset(images, trained), shuffle=True, **loading)
        folds.append((model, optimizer, training, DataLoader(Subset(images, validated), **loading)))

    for _ in range(task["epochs"]):
        scores = []
        for model, optimizer, training, validation in folds:
            train_epoch(model, training, optimizer)
            scores.append(evaluate(model, validation))
        aurocs, losses = zip(*scores, strict=True)
        tune.report(
            {
                "auroc": float(np.mean(aurocs)),
                "log_loss": float(np.mean(losses)),
                "aurocs": json.dumps(aurocs),
                "log_losses": json.dumps(losses),
                "trained_parameters": sum(parameter.numel() for parameter in parameters),
            }
        )


def main(folder: Path) -> None:
    task = json.loads((folder / "task.json").read_text())
    layers = task["unfrozen_layers"]
    space = {
        **SEARCHED,
        "model": task["model"],
        "unfrozen_layers": tune.randint(layers[0], layers[1] + 1) if isinstance(layers, list) else layers,
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(cross_validate, task=task), {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="auroc",
            mode="max",
            search_alg=OptunaSearch(points_to_evaluate=task["points"]),
            num_samples=len(task["points"]),
            max_concurrent_trials=task["side_by_side"],
        ),
        run_config=tune.RunConfig(name="search", storage_path=str(folder)),
    )
    results = []
    for result in tuner.fit():
        if result.error:
            raise result.error
        rows = result.metrics_dataframe
        results.append(
            {
                "learning_rate": result.config["learning_rate"],
                "aurocs": [json.loads(each) for each in rows["aurocs"]],
                "log_losses": [json.loads(each) for each in rows["log_losses"]],
                "trained_parameters": int(rows["trained_parameters"].iloc[0]),
                "began": float(rows["timestamp"].iloc[0] - rows["time_total_s"].iloc[0]),
                "seconds": float(rows["time_total_s"].iloc[-1]),
            }
        )
    (folder / "results.json").write_text(json.dumps({"ended": time.time(), "trials": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
