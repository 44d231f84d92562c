"""Published presets against the authors' scripts, value by value, and against the departures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from small_models import FAMILIES

from sgas.config import TrainConfig
from sgas.deciding.schedule import learning_rate
from sgas.own import OPTIONS
from sgas.running.settings import LOOPS, fields_of, load_preset

ROOT = Path(__file__).parents[2]

# Preset, verb, script, which command, and what its words add to the command's flags.
CASES: list[tuple[str, str, str, str, int, dict[str, Any]]] = [
    ("image", "paper", "search", "cnn/train_search.py", 0, {}),
    ("image", "paper", "train", "cnn/train.py", 0, {}),
    ("image", "imagenet", "search", "cnn/train_search.py", 2, {}),
    ("image", "imagenet", "train", "cnn/train_imagenet.py", 0, {}),
    ("point", "paper", "search", "gcn/gcn_point/train_search.py", 0, {}),
    ("point", "paper_small", "search", "gcn/gcn_point/train_search.py", 0, {}),
    ("point", "paper", "train", "gcn/gcn_point/main_modelnet.py", 0, {}),
    ("point", "paper_small", "train", "gcn/gcn_point/main_modelnet.py", 1, {}),
    ("graph", "paper", "search", "gcn/gcn_graph/train_search.py", 0, {}),
    ("graph", "paper_small", "search", "gcn/gcn_graph/train_search.py", 0, {}),
    ("graph", "paper", "train", "gcn/gcn_graph/main_ppi.py", 0, {}),
    ("graph", "paper_small", "train", "gcn/gcn_graph/main_ppi.py", 1, {"init_channels": 64}),
]
NAMES = {
    "init_channels": "channels",
    "layers": "num_cells",
    "n_steps": "num_steps",
    "drop_path_prob": "drop_path",
    "arch_learning_rate": "alpha_learning_rate",
    "arch_weight_decay": "alpha_weight_decay",
    "warmup_dec_epoch": "warmup_epochs",
    "decision_freq": "decision_interval",
    "label_smooth": "label_smoothing",
}
# No option of a preset: the seed, the strategy, the genotype, the protocol's parts, what the data
# says, and the second order, which there is not.
ELSEWHERE = {"seed", "use_history", "arch", "train_portion", "in_channels", "unrolled"}
# What the facts of a script say of options: words of the fact, and the values that follow.
FACTS: dict[str, dict[str, dict[str, Any]]] = {
    "cnn/train_search.py": {
        "random crop 32 with padding 4, horizontal flip": {"crop_padding": 4, "flip": True},
        "of CIFAR-10's training set for weights": {"stem": "cifar"},
        "no cutout unless asked": {"cutout": 0},
    },
    "cnn/train.py": {
        "SGD, cosine to 0 over 600 epochs": {
            "optimizer": "sgd",
            "learning_rate_schedule": "cosine",
            "learning_rate_warmup": 0,
            "learning_rate_min": 0.0,
            "epochs": 600,
        },
        "drop path probability = 0.2*epoch/epochs": {"drop_path": 0.2},
        "crop, flip, cutout 16": {"stem": "cifar", "crop_padding": 4, "flip": True, "cutout": 16},
    },
    "cnn/train_imagenet.py": {
        "learning rate: lr*(E-5-e)/(E-5)": {
            "learning_rate_schedule": "two_slopes",
            "learning_rate_min": 0.0,
        },
        "is multiplied by (e+1)/5": {"learning_rate_warmup": 4},
        "random resized crop 224, flip, colour jitter .4 .4 .4 hue .2": {
            "image_size": 224,
            "stem": "imagenet",
            "flip": True,
            "jitter": 0.4,
        },
    },
    "gcn/gcn_point/train_search.py": {
        "no scale, shift or jitter in the search": {"scale": 1.0, "shift": 0.0, "jitter": 0.0},
        "points are drawn anew on the mesh at every access": {"resample": True},
    },
    "gcn/gcn_point/main_modelnet.py": {
        "scaled per axis by U(2/3, 3/2), shifted per axis by U(-0.2, 0.2)": {
            "scale": 1.5,
            "shift": 0.2,
            "jitter": 0.0,
            "resample": False,
        },
        "cosine to 0.001 over 400 epochs": {
            "optimizer": "sgd",
            "learning_rate_schedule": "cosine",
            "learning_rate": 0.1,
            "learning_rate_min": 0.001,
        },
        "drop path probability = 0.2*epoch/epochs": {"drop_path": 0.2},
    },
    "gcn/gcn_graph/train_search.py": {},
    "gcn/gcn_graph/main_ppi.py": {
        "Adam lr 0.002 without weight decay": {
            "optimizer": "adam",
            "weight_decay": 0.0,
            "learning_rate_schedule": "cosine",
            "learning_rate_min": 0.0,
        },
        "drawn per node": {"drop_path": 0.2, "drop_path_by": "node"},
        "the checkpoint of the best validation micro-F1 is kept": {"kept_epoch": "best"},
        "computed per graph and averaged with the numbers of nodes": {"micro_f1_by": "graph"},
    },
}


def theirs(scripts: dict[str, Any], verb: str, script: str, number: int) -> dict[str, Any]:
    """What a script's defaults, one command and the facts say, by our options' names."""
    told = scripts[script]
    values, words = dict(told["defaults"]), told["commands"][number].split()
    for at, word in enumerate(words):
        if word.startswith("--"):
            following = words[at + 1] if at + 1 < len(words) else "--"
            plain = following.startswith(("--", "("))
            values[word[2:]] = True if plain else following
    length = values.pop("cutout_length", 0)
    values["cutout"] = length if values.get("cutout") else 0
    if verb == "search":
        assert values.pop("drop_path_prob") == 0.3  # declared, and read by no search
    values = {NAMES.get(name, name): value for name, value in values.items()}
    for words_of_fact, facts in FACTS[script].items():
        assert any(words_of_fact in fact for fact in told["facts"]), words_of_fact
        values |= facts
    return {name: value for name, value in values.items() if name not in ELSEWHERE}


def departures() -> list[dict[str, str]]:
    """The rows of the table in docs, one for each preset."""
    lines = (ROOT / "docs/published_settings.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    head, _, *rows = cells
    table = [dict(zip(head, row, strict=True)) for row in rows]
    return [row | {"preset": name} for row in table for name in row["preset"].split(", ")]


def family_of(space: str) -> Any:
    return next(family for family in FAMILIES.values() if space in family.spaces)


@pytest.mark.parametrize("space, preset, verb, script, number, more", CASES)
def test_published_presets_are_the_authors(
    shared: Path, space: str, preset: str, verb: str, script: str, number: int, more: dict[str, Any]
) -> None:
    scripts = json.loads((shared / "golden/authors_settings.json").read_text())["scripts"]
    wanted = theirs(scripts, verb, script, number) | {NAMES.get(k, k): v for k, v in more.items()}
    ours = load_preset(family_of(space), space, preset, verb)
    differing = {
        (f"`{name}`", str(value), str(ours[name]))
        for name, value in wanted.items()
        if name in ours and float_or_text(value) != float_or_text(ours[name])
    }
    listed = {
        (row["setting"], row["theirs"], row["ours"])
        for row in departures()
        if row["preset"] == f"{space}-{preset}" and row["verb"] == verb and "`" in row["setting"]
    }
    assert differing == listed
    unknown = {name: value for name, value in wanted.items() if name not in ours}
    # What is off with them needs no option here; `data_augment` and `use_sgd` are among the facts.
    assert {name for name, value in unknown.items() if value not in (False, 0)} <= {
        "auxiliary_weight", "data_augment", "use_sgd", "lr_scheduler",
    }  # fmt: skip


def float_or_text(value: Any) -> Any:
    """A number as float, anything else as it is."""
    try:
        return float(value)
    except ValueError:
        return value


@pytest.mark.parametrize("space, preset, verb", sorted({case[:3] for case in CASES}))
def test_published_presets_leave_no_value_to_the_defaults(
    space: str, preset: str, verb: str
) -> None:
    family = family_of(space)
    entry = family.spaces[space]
    configs = (LOOPS[verb], entry.model_config, entry.data_config)
    # Not of the setting: the strategy that is compared, what own data is, and where none is usual.
    names = {
        name
        for config in configs
        for name, (spec, _) in fields_of(config, verb).items()
        if name not in ("strategy", *OPTIONS) and spec.default is not None
    }
    assert names <= set(load_preset(family, space, preset, verb))


def test_each_departure_is_of_a_published_preset_and_has_its_reason() -> None:
    known = {(f"{space}-{preset}", verb) for space, preset, verb, *_ in CASES}
    assert all((row["preset"], row["verb"]) in known and row["reason"] for row in departures())
    assert departures()


def test_imagenets_rate_is_the_authors() -> None:
    values = load_preset(family_of("image"), "image", "imagenet", "train")
    names = {spec.name for spec in dataclasses.fields(TrainConfig)}
    config = TrainConfig(**{name: value for name, value in values.items() if name in names})
    for epoch in range(250):
        steep = 0.5 * (245 - epoch) / 245 if 250 - epoch > 5 else 0.5 * (250 - epoch) / (245 * 5)
        wanted = steep * (epoch + 1) / 5 if epoch < 5 else steep
        assert learning_rate(config, epoch) == pytest.approx(wanted, rel=1e-12), epoch


def test_two_slopes_of_a_short_training_are_one() -> None:
    config = TrainConfig(
        epochs=4, learning_rate=0.4, learning_rate_min=0.0, learning_rate_schedule="two_slopes"
    )
    rates = [learning_rate(config, epoch) for epoch in range(4)]
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
