"""The model card of a trained network, by the hub library's own classes; nothing is uploaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from sgas.protocols import PAPER
from sgas.reports import Fact

CARD, LIBRARY = "README.md", "huggingface_hub"
BIBTEX = """@inproceedings{li2020sgas,
  title = {SGAS: Sequential Greedy Architecture Search},
  author = {Li, Guohao and Qian, Guocheng and Delgadillo, Itzel C. and M{\\"u}ller, Matthias and
            Thabet, Ali and Ghanem, Bernard},
  booktitle = {CVPR},
  year = {2020}
}"""


def can_write_card() -> bool:
    """Whether the library that writes cards is installed (extra `hub`)."""
    return find_spec(LIBRARY) is not None


def card_text(
    name: str,
    task: str,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    facts: Sequence[Fact],
    pictures: Sequence[str],
    loading: str,
) -> str:
    """The card of a training: a YAML head and what a reader has to know.

    `facts` are the figures of its page, `loading` the code that loads it, `pictures` files beside.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    dataset, space = str(config["run"]["dataset"]), str(config["run"]["space"])
    measured = {
        key: value
        for key, value in (evaluation or {}).items()
        if isinstance(value, float) and key != "loss"
    }
    results = [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="test",
            metric_type=key,
            metric_value=value,
        )
        for key, value in measured.items()
    ]
    head = ModelCardData(
        model_name=name,
        library_name="sgas",
        tags=["sgas", "neural-architecture-search", space],
        metrics=list(measured) or None,
        eval_results=results or None,
    )
    rows = "\n".join(f"| {fact.name} | {fact.value} | {fact.note} |" for fact in facts)
    drawn = "\n".join(f"![{picture}]({picture})" for picture in pictures)
    limits = ["One training with one seed: how far others would be from it is not known."]
    if evaluation is None:
        limits.append("The test part has not been opened: no figure here is of unseen data.")
    if result["protocol"] == PAPER:
        limits.append("Protocol paper: a test split took part in what made this network.")
    classes = ", ".join(config.get("classes", ["not kept by the version that trained it"]))
    opened = f"the test part of {dataset}" if evaluation else "no test part"
    body = f"""# {name}

A network for {task}, whose cell was searched by SGAS.

{drawn}

## Figures

| figure | value | |
|---|---|---|
{rows}

## Data

Searched and trained on: {result["provenance"]}. Evaluated on: {opened}.
Classes: {classes}.

## Limits

{" ".join(limits)}

## Use

```python
{loading}
```

Made by

```
{config["command"]}
```

## Citation

```bibtex
{BIBTEX}
```
"""
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n\n{body}"))
